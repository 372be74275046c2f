//! The texts of one epoch: the real ones, lightly disturbed, and those that the recipe adds.

use rand::{Rng, RngExt};

use super::counterfactuals::Counterfactuals;
use super::data::{Corpus, Example, words};
use super::foreign;
use super::fragments::Fragments;
use super::labelled::LabelledText;
use super::random::{Purpose, chance, pick, stream};
use super::recipe::{Augmentation, Recipe};

/// The share of an intent's changed texts that lose their meaning. The others get other names, so that
/// most changed texts keep the intent.
const STRIPPED: f64 = 1.0 / 3.0;

/// Makes the texts of every epoch from the corpus and the seed.
#[derive(Debug)]
pub(crate) struct Augmenter {
    seed: u64,
    settings: Augmentation,
    /// The real texts.
    real: Vec<LabelledText>,
    /// The id of the background label, when the recipe names one that occurs.
    background: Option<usize>,
    fragments: Fragments,
    /// Present with a background label only.
    counterfactuals: Option<Counterfactuals>,
    /// Real words to mix up the letters of.
    words: Vec<String>,
}

impl Augmenter {
    /// Prepares the augmentation a recipe asks for.
    pub(crate) fn new(recipe: &Recipe, corpus: &Corpus) -> Self {
        let id = |label: &String| corpus.labels.binary_search(label).ok();
        let background = recipe.background.as_ref().and_then(id);
        let settings = recipe.augmentation.clone();
        let fragments = Fragments::mine(&corpus.train, &corpus.labels, background, &settings);
        let to_id =
            |row: &Example| id(&row.label).map(|label| LabelledText::new(row.text.as_str(), label));
        let real: Vec<LabelledText> = corpus.train.iter().filter_map(to_id).collect();
        let mut distinct: Vec<String> = real
            .iter()
            .flat_map(|real| words(&real.text))
            .filter(|word| word.chars().count() >= 4)
            .collect();
        distinct.sort_unstable();
        distinct.dedup();
        let counterfactuals =
            background.map(|id| Counterfactuals::mine(&real, id, settings.fragment_count_min));
        Self {
            seed: recipe.seed,
            settings,
            real,
            background,
            fragments,
            counterfactuals,
            words: distinct,
        }
    }

    /// The real texts.
    pub(crate) fn real(&self) -> &[LabelledText] {
        &self.real
    }

    /// The texts of an epoch, in no particular order. The same epoch always has the same texts.
    pub(crate) fn epoch(&self, epoch: usize) -> Vec<LabelledText> {
        let rng = &mut stream(self.seed, Purpose::Texts, epoch);
        let mut texts: Vec<LabelledText> = self
            .real
            .iter()
            .map(|real| LabelledText::new(disturb(rng, &real.text, &self.settings), real.label))
            .collect();
        let amount = |share: f64| (share * self.real.len() as f64).round() as usize;
        let by_label = self.by_label();
        self.add_fragments(rng, amount(self.settings.fragments), &by_label, &mut texts);
        for _ in 0..amount(self.settings.joined) {
            let LabelledText { text, label } = pick(rng, &self.real);
            let second = *pick(rng, &by_label[*label]);
            texts.push(LabelledText::new(format!("{text} {second}"), *label));
        }
        if let Some(background) = self.background {
            for _ in 0..amount(self.settings.foreign) {
                let text = foreign::draw(rng, self.fragments.neutral(), &self.words);
                texts.push(LabelledText::new(text, background));
            }
            self.add_counterfactuals(rng, background, &mut texts);
        }
        texts
    }

    /// Half of the fragments are of the background, when there is one: it has the most topics.
    fn add_fragments(
        &self,
        rng: &mut impl Rng,
        count: usize,
        by_label: &[Vec<&str>],
        texts: &mut Vec<LabelledText>,
    ) {
        let intents: Vec<usize> = (0..by_label.len())
            .filter(|label| Some(*label) != self.background)
            .collect();
        if intents.is_empty() {
            return;
        }
        for _ in 0..count {
            let label = match self.background {
                Some(background) if rng.random::<bool>() => background,
                _ => *pick(rng, &intents),
            };
            if let Some(text) = self.fragments.draw(rng, label, &by_label[label]) {
                texts.push(LabelledText::new(text, label));
            }
        }
    }

    fn add_counterfactuals(
        &self,
        rng: &mut impl Rng,
        background: usize,
        texts: &mut Vec<LabelledText>,
    ) {
        let Some(counterfactuals) = &self.counterfactuals else {
            return;
        };
        let count = (self.settings.counterfactuals * self.real.len() as f64).round() as usize;
        for _ in 0..count {
            let LabelledText { text, label } = pick(rng, &self.real);
            let (changed, label) = if *label == background {
                let other = pick(rng, &self.real);
                if other.label == background {
                    (counterfactuals.graft(rng, text), background)
                } else {
                    (counterfactuals.splice(rng, &other.text, text), background)
                }
            } else if chance(rng, STRIPPED) {
                (counterfactuals.strip(rng, text), background)
            } else {
                (counterfactuals.rename(rng, text), *label)
            };
            texts.extend(changed.map(|text| LabelledText::new(text, label)));
        }
    }

    fn by_label(&self) -> Vec<Vec<&str>> {
        let labels = self
            .real
            .iter()
            .map(|real| real.label + 1)
            .max()
            .unwrap_or(0);
        let mut grouped = vec![Vec::new(); labels];
        for LabelledText { text, label } in &self.real {
            grouped[*label].push(text.as_str());
        }
        grouped
    }
}

/// Changes punctuation and spelling a little, with the recipe's probabilities.
fn disturb(rng: &mut impl Rng, text: &str, settings: &Augmentation) -> String {
    let mut text = text.to_owned();
    if chance(rng, settings.punctuation) {
        const ENDS: &[&str] = &["", "", "", ".", "!", "?", "..."];
        let bare = text.trim_end_matches(|c: char| c.is_ascii_punctuation() || c.is_whitespace());
        let bare = if rng.random::<bool>() {
            bare.replace(['\'', ','], "")
        } else {
            bare.into()
        };
        text = bare + *pick(rng, ENDS);
    }
    if chance(rng, settings.typos) {
        text = mistype(rng, &text);
    }
    text
}

/// Swaps, drops or doubles one letter of one word of four letters or more.
fn mistype(rng: &mut impl Rng, text: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let inner: Vec<usize> = (1..letters.len().saturating_sub(2))
        .filter(|at| letters[at - 1..at + 3].iter().all(|c| c.is_alphabetic()))
        .collect();
    if inner.is_empty() {
        return text.to_owned();
    }
    let at = *pick(rng, &inner);
    match rng.random_range(0..3) {
        0 => letters.swap(at, at + 1),
        1 => {
            letters.remove(at);
        }
        _ => letters.insert(at, letters[at]),
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Corpus {
        let row = |text: &str, label: &str| Example {
            text: text.into(),
            label: label.into(),
        };
        let mut train = Vec::new();
        for number in 0..20 {
            train.push(row(&format!("play song number{number}!"), "a"));
            train.push(row(&format!("open the door number{number}"), "z"));
        }
        Corpus {
            train,
            validation: Vec::new(),
            test: Vec::new(),
            labels: vec!["a".into(), "z".into()],
            excluded: 0,
            held_out: 0,
            overlap: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn an_epoch_adds_the_asked_shares_and_repeats() {
        let mut recipe = Recipe {
            background: Some("z".into()),
            ..Recipe::default()
        };
        recipe.augmentation.fragments = 0.5;
        recipe.augmentation.foreign = 0.25;
        recipe.augmentation.joined = 0.1;
        recipe.augmentation.typos = 0.5;
        let augmenter = Augmenter::new(&recipe, &corpus());
        let first = augmenter.epoch(0);
        assert_eq!(first.len(), 40 + 20 + 10 + 4);
        assert_eq!(first, augmenter.epoch(0));
        assert_ne!(first, augmenter.epoch(1));
    }

    #[test]
    fn without_augmentation_the_texts_stay_as_they_are() {
        let corpus = corpus();
        let texts = Augmenter::new(&Recipe::default(), &corpus).epoch(3);
        let real: Vec<&str> = corpus.train.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(
            texts
                .iter()
                .map(|labelled| labelled.text.as_str())
                .collect::<Vec<_>>(),
            real
        );
    }

    #[test]
    fn a_typing_mistake_changes_at_most_one_letter() {
        let mut rng = stream(9, Purpose::Texts, 0);
        for _ in 0..50 {
            let length = mistype(&mut rng, "playlist").chars().count();
            assert!((7..=9).contains(&length));
        }
        assert_eq!(mistype(&mut rng, "a b c"), "a b c");
    }
}
