//! Short fragments that still carry an intent, mined from the labelled texts themselves.
//!
//! People type `music` or `table for two`; data sets consist of whole sentences, and a classifier trained only
//! on sentences is uncertain about fragments. The rule here is counted, not written by hand: an n-gram of one
//! to four words is a *sign* of a label when enough texts contain it and nearly all of them have that label. A
//! piece of a sentence keeps the sentence's label when it contains a sign of that label and none of any other.
//!
//! With a background label (the one for "none of these") there are two criteria. A sign of an intent is
//! determined by rates, so that a large background does not outweigh it. A sign of the background is
//! determined by counts, since the background has many topics and each of its words is rare.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::{Rng, RngExt};

use super::data::Example;
use super::random::pick;
use super::recipe::Augmentation;

/// The longest sign and the longest fragment, in words.
const WORDS_MAX: usize = 4;

/// How often a random piece of a sentence is tried before giving up.
const TRIES_MAX: usize = 12;

/// The signs of every label, from which fragments are drawn.
#[derive(Debug)]
pub(crate) struct Fragments {
    /// The label that each n-gram is a sign of.
    meaning: HashMap<String, usize>,
    /// By label and length in words: the signs, sorted.
    signs: Vec<[Vec<String>; WORDS_MAX]>,
    /// Frequent words that are a sign of no label, mostly function words; sorted.
    neutral: Vec<String>,
}

impl Fragments {
    /// Counts n-grams over the texts. `labels` gives the order of label ids; `background` is the id
    /// of the label for foreign texts.
    pub(crate) fn mine(
        examples: &[Example],
        labels: &[String],
        background: Option<usize>,
        settings: &Augmentation,
    ) -> Self {
        let counts = count(examples, labels);
        let mut totals = vec![0_usize; labels.len()];
        for example in examples {
            if let Ok(label) = labels.binary_search(&example.label) {
                totals[label] += 1;
            }
        }
        let mut signs = vec![<[Vec<String>; WORDS_MAX]>::default(); labels.len()];
        let (mut meaning, mut neutral) = (HashMap::new(), Vec::new());
        for (gram, by_label) in counts {
            let held: usize = by_label.iter().sum();
            let length = gram.split(' ').count();
            if held < settings.fragment_count_min {
                continue;
            }
            if let Some(label) = sign_of(&by_label, &totals, background, settings) {
                signs[label][length - 1].push(gram.clone());
                meaning.insert(gram, label);
            } else if length == 1 && is_neutral(&by_label, &totals, background) {
                neutral.push(gram);
            }
        }
        Self {
            meaning,
            signs,
            neutral,
        }
    }

    /// The signs of a label, shortest first.
    #[cfg(test)]
    pub(crate) fn signs(&self, label: usize) -> impl Iterator<Item = &str> {
        self.signs[label].iter().flatten().map(String::as_str)
    }

    /// Frequent words that are a sign of no label.
    pub(crate) fn neutral(&self) -> &[String] {
        &self.neutral
    }

    /// Draws a fragment of a label: with equal probability a sign or a piece of one of the label's texts. The
    /// lengths of signs have equal probability, so that single words are not outnumbered by longer signs.
    pub(crate) fn draw(&self, rng: &mut impl Rng, label: usize, texts: &[&str]) -> Option<String> {
        if rng.random::<bool>() {
            let lengths: Vec<&Vec<String>> = self.signs[label]
                .iter()
                .filter(|signs| !signs.is_empty())
                .collect();
            if !lengths.is_empty() {
                let signs = lengths[rng.random_range(0..lengths.len())];
                return Some(pick(rng, signs).clone());
            }
        }
        if texts.is_empty() {
            return None;
        }
        for _ in 0..TRIES_MAX {
            let words = surface_words(texts[rng.random_range(0..texts.len())]);
            if words.is_empty() {
                continue;
            }
            let length = rng.random_range(1..=WORDS_MAX.min(words.len()));
            let start = rng.random_range(0..=words.len() - length);
            let piece = &words[start..start + length];
            if self.label_of(piece) == Some(label) {
                return Some(piece.join(" "));
            }
        }
        None
    }

    /// The one label whose signs a piece contains; `None` without signs or with signs of several labels.
    fn label_of(&self, words: &[String]) -> Option<usize> {
        let mut found = None;
        for gram in grams(words) {
            match (self.meaning.get(&gram), found) {
                (Some(label), Some(other)) if *label != other => return None,
                (Some(label), _) => found = Some(*label),
                (None, _) => {}
            }
        }
        found
    }
}

/// The label that an n-gram is a sign of, from the number of texts of each label that contain it.
fn sign_of(
    held: &[usize],
    totals: &[usize],
    background: Option<usize>,
    settings: &Augmentation,
) -> Option<usize> {
    let purity_min = settings.fragment_purity_min;
    if let Some(background) = background {
        let all: usize = held.iter().sum();
        // One pseudo-count for another label: an n-gram seen four times, always with this label, is not certain.
        if held[background] as f64 / (all + 1) as f64 >= purity_min {
            return Some(background);
        }
    }
    let rate = |label: usize| held[label] as f64 / totals[label].max(1) as f64;
    let rates: f64 = (0..held.len()).map(rate).sum();
    let best = (0..held.len()).max_by(|a, b| rate(*a).total_cmp(&rate(*b)))?;
    let enough = held[best] >= settings.fragment_count_min && Some(best) != background;
    (enough && rate(best) / rates >= purity_min).then_some(best)
}

/// Whether a word is neutral: the background uses it at least as often as the intents do, and texts of several
/// labels contain it.
fn is_neutral(held: &[usize], totals: &[usize], background: Option<usize>) -> bool {
    let Some(background) = background else {
        return false;
    };
    let (held_all, totals_all): (usize, usize) = (held.iter().sum(), totals.iter().sum());
    let share = held[background] as f64 / held_all.max(1) as f64;
    let expected = totals[background] as f64 / totals_all.max(1) as f64;
    held_all >= 20 && share >= expected && held.iter().filter(|count| **count > 0).count() >= 3
}

/// The words of a text, case-folded, without surrounding punctuation.
pub(crate) fn surface_words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| {
            word.trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// Every n-gram of up to [`WORDS_MAX`] words.
fn grams(words: &[String]) -> impl Iterator<Item = String> + '_ {
    (1..=WORDS_MAX).flat_map(move |length| words.windows(length).map(|window| window.join(" ")))
}

/// The number of texts of each label that contain each n-gram. The map is ordered, so that a run can be
/// repeated.
fn count(examples: &[Example], labels: &[String]) -> BTreeMap<String, Vec<usize>> {
    let mut counts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for example in examples {
        let Ok(label) = labels.binary_search(&example.label) else {
            continue;
        };
        let distinct: HashSet<String> = grams(&surface_words(&example.text)).collect();
        for gram in distinct {
            counts.entry(gram).or_insert_with(|| vec![0; labels.len()])[label] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    fn toy() -> (Vec<Example>, Vec<String>) {
        let rows = [
            ("play some jazz music", "Play"),
            ("play rock music now", "Play"),
            ("Play the blues", "Play"),
            ("what is the weather in rome", "Weather"),
            ("weather for the weekend", "Weather"),
            ("the weather tomorrow", "Weather"),
            ("turn the lights on", "Zero"),
            ("lights off", "Zero"),
            ("are the lights off", "Zero"),
        ];
        let example = |(text, label): (&str, &str)| Example {
            text: text.to_owned(),
            label: label.to_owned(),
        };
        let labels = ["Play", "Weather", "Zero"].map(str::to_owned).to_vec();
        (rows.into_iter().map(example).collect(), labels)
    }

    fn mine() -> Fragments {
        let (examples, labels) = toy();
        let settings = Augmentation {
            fragment_count_min: 2,
            fragment_purity_min: 0.6,
            ..Augmentation::default()
        };
        Fragments::mine(&examples, &labels, Some(2), &settings)
    }

    #[test]
    fn signs_are_the_words_of_one_label() {
        let fragments = mine();
        assert_eq!(fragments.signs(0).collect::<Vec<_>>(), ["music", "play"]);
        assert!(fragments.signs(1).any(|sign| sign == "the weather"));
        assert!(fragments.signs(2).any(|sign| sign == "lights"));
        assert!(
            !fragments.meaning.contains_key("the"),
            "occurs with every label"
        );
    }

    #[test]
    fn a_piece_with_signs_of_two_labels_has_no_label() {
        let fragments = mine();
        let label_of = |text: &str| fragments.label_of(&surface_words(text));
        assert_eq!(label_of("some jazz music"), Some(0));
        assert_eq!(label_of("weather in rome"), Some(1));
        assert_eq!(label_of("play the weather"), None);
        assert_eq!(label_of("in rome"), None);
    }

    #[test]
    fn drawn_fragments_contain_a_sign_and_repeat_with_the_seed() {
        let fragments = mine();
        let texts = ["play some jazz music", "play rock music now"];
        let draw = |seed| {
            let mut rng = stream(seed, Purpose::Texts, 0);
            (0..50)
                .filter_map(|_| fragments.draw(&mut rng, 0, &texts))
                .collect::<Vec<_>>()
        };
        assert!(
            draw(1)
                .iter()
                .all(|text| text.contains("play") || text.contains("music"))
        );
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
