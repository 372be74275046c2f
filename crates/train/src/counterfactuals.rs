//! Texts that look like an intent's and are not: the near side of the background.
//!
//! Names of places, songs and books occur only in the texts of intents, so a classifier trained on plain
//! data takes any rare word for a sign of an intent, and `what is the population of oslo` for a question
//! about the weather. Four changes of real texts correct that:
//!
//! - *strip*: every word that intents use much more than the background is replaced by a word of the
//!   background. The frame and the names that are left belong to the background.
//! - *graft*: a few words of a foreign text are replaced by words that intents use rarely, most of
//!   them names. The text stays foreign.
//! - *splice*: the first words of an intent's text are followed by the last words of a foreign one. The text
//!   is foreign.
//! - *rename*: the names in an intent's text are replaced by other names. The intent stays.

use std::collections::{BTreeMap, HashSet};

use rand::{Rng, RngExt};

use super::fragments::surface_words;
use super::labelled::LabelledText;
use super::random::pick;

/// A word is an intent's when this share of its use, by rates, is in the intents' texts.
const PURITY_MIN: f64 = 0.75;

/// A word that occurs in more than this share of the intents' texts is not a name.
const NAME_SHARE_MAX: f64 = 0.004;

/// The words to remove and to insert.
#[derive(Debug)]
pub(crate) struct Counterfactuals {
    /// Words that intents use much more than the background.
    intent_words: HashSet<String>,
    /// Words that intents use, but rarely; sorted.
    names: Vec<String>,
    /// Words that the background uses much more than intents; sorted.
    background_words: Vec<String>,
}

impl Counterfactuals {
    /// Counts words over labelled texts. Words in fewer than `count_min` texts are neither an
    /// intent's nor the background's, but may be names.
    pub(crate) fn mine(texts: &[LabelledText], background: usize, count_min: usize) -> Self {
        let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        let mut totals = [0_usize; 2];
        for LabelledText { text, label } in texts {
            let side = usize::from(*label == background);
            totals[side] += 1;
            for word in surface_words(text).into_iter().collect::<HashSet<_>>() {
                counts.entry(word).or_default()[side] += 1;
            }
        }
        let [intents, foreign] = totals.map(|total| total.max(1) as f64);
        let mut mined = Self {
            intent_words: HashSet::new(),
            names: vec![],
            background_words: vec![],
        };
        for (word, [inside, outside]) in counts {
            let (inside_rate, outside_rate) = (inside as f64 / intents, outside as f64 / foreign);
            let purity = inside_rate / (inside_rate + outside_rate);
            if purity >= PURITY_MIN && inside_rate <= NAME_SHARE_MAX {
                mined.names.push(word.clone());
            }
            if inside + outside >= count_min {
                if purity >= PURITY_MIN {
                    mined.intent_words.insert(word);
                } else if purity <= 1.0 - PURITY_MIN {
                    mined.background_words.push(word);
                }
            }
        }
        mined
    }

    /// Removes the meaning of an intent's text. `None` when the text has no word to replace, or only such
    /// words.
    pub(crate) fn strip(&self, rng: &mut impl Rng, text: &str) -> Option<String> {
        let mut words = surface_words(text);
        let before = words.len();
        let mut replaced = 0;
        for word in words
            .iter_mut()
            .filter(|word| self.intent_words.contains(*word))
        {
            word.clone_from(maybe_pick(rng, &self.background_words)?);
            replaced += 1;
        }
        (replaced > 0 && replaced < before).then(|| words.join(" "))
    }

    /// Puts names into a foreign text, in place of at most a third of its words. `None` when the text
    /// is too short for that.
    pub(crate) fn graft(&self, rng: &mut impl Rng, text: &str) -> Option<String> {
        let mut words = surface_words(text);
        let most = words.len() / 3;
        if most == 0 {
            return None;
        }
        for _ in 0..rng.random_range(1..=most) {
            let at = rng.random_range(0..words.len());
            words[at].clone_from(maybe_pick(rng, &self.names)?);
        }
        Some(words.join(" "))
    }

    /// Puts the first words of an intent's text before the last words of a foreign one. `None` when
    /// the foreign words do not outweigh the intent's.
    pub(crate) fn splice(&self, rng: &mut impl Rng, intent: &str, foreign: &str) -> Option<String> {
        let (mut head, tail) = (surface_words(intent), surface_words(foreign));
        if head.len() < 4 || tail.len() < 3 {
            return None;
        }
        head.truncate(rng.random_range(1..=3));
        let tail = &tail[tail.len() - rng.random_range(2..tail.len())..];
        let is_foreign = |word: &&String| self.background_words.binary_search(*word).is_ok();
        let kept = head
            .iter()
            .filter(|word| self.intent_words.contains(*word))
            .count();
        if tail.iter().filter(is_foreign).count() < kept.max(1) {
            return None;
        }
        head.extend_from_slice(tail);
        Some(head.join(" "))
    }

    /// Puts other names into an intent's text. `None` when it holds none.
    pub(crate) fn rename(&self, rng: &mut impl Rng, text: &str) -> Option<String> {
        let mut words = surface_words(text);
        let mut replaced = 0;
        for word in words
            .iter_mut()
            .filter(|word| self.names.binary_search(word).is_ok())
        {
            word.clone_from(pick(rng, &self.names));
            replaced += 1;
        }
        (replaced > 0).then(|| words.join(" "))
    }
}

fn maybe_pick<'a>(rng: &mut impl Rng, words: &'a [String]) -> Option<&'a String> {
    if words.is_empty() {
        None
    } else {
        Some(pick(rng, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    fn mine() -> Counterfactuals {
        let mut texts = Vec::new();
        for number in 0..300 {
            let (intent, foreign) = (
                format!("is there rain in town{number}"),
                format!("is there money in my account {}", number % 7),
            );
            texts.push(LabelledText::new(intent, 0));
            texts.push(LabelledText::new(foreign, 1));
        }
        Counterfactuals::mine(&texts, 1, 3)
    }

    #[test]
    fn words_are_assigned_to_the_side_that_uses_them() {
        let mined = mine();
        assert!(mined.intent_words.contains("rain") && !mined.intent_words.contains("there"));
        assert!(mined.names.contains(&"town5".to_owned()));
        assert!(!mined.names.contains(&"rain".to_owned()));
        assert!(mined.background_words.contains(&"money".to_owned()));
    }

    #[test]
    fn stripping_keeps_frame_and_names() {
        let mined = mine();
        let mut rng = stream(1, Purpose::Texts, 0);
        let text = mined
            .strip(&mut rng, "Is there rain in town5?")
            .expect("rain is replaced");
        assert!(
            text.starts_with("is there ") && text.ends_with(" in town5"),
            "{text}"
        );
        assert!(!text.contains("rain"));
        assert_eq!(mined.strip(&mut rng, "is there"), None);
    }

    #[test]
    fn renaming_changes_names_only() {
        let mut rng = stream(1, Purpose::Texts, 0);
        let text = mine()
            .rename(&mut rng, "is there rain in town5")
            .expect("town5 is a name");
        assert!(text.starts_with("is there rain in town"), "{text}");
        assert_eq!(mine().rename(&mut rng, "rain"), None);
    }

    #[test]
    fn splicing_needs_a_foreign_end() {
        let mined = mine();
        let mut rng = stream(1, Purpose::Texts, 0);
        let mut results = (0..40).map(|_| {
            mined.splice(
                &mut rng,
                "is there rain in town5",
                "is there money in my account 3",
            )
        });
        assert!(results.any(|text| text.is_some_and(|text| text.contains("account"))));
        let mut rng = stream(1, Purpose::Texts, 0);
        assert_eq!(
            mined.splice(&mut rng, "is there rain in town5", "is there is there"),
            None
        );
    }

    #[test]
    fn grafting_replaces_at_most_a_third() {
        let mined = mine();
        let mut rng = stream(1, Purpose::Texts, 0);
        let before = ["is", "there", "money", "in", "my", "account"];
        let text = mined
            .graft(&mut rng, &before.join(" "))
            .expect("long enough");
        let kept = text
            .split(' ')
            .zip(before)
            .filter(|(now, then)| now == then)
            .count();
        assert!((4..6).contains(&kept), "{text}");
        assert_eq!(mined.graft(&mut rng, "money now"), None);
    }
}
