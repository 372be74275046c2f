//! The limits of every setting of a recipe.

use super::error::TrainError;
use super::recipe::{Augmentation, Recipe, Schedule, Shape};

impl Recipe {
    /// Checks every setting and reports all mistakes at once.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with one sentence for each mistake.
    pub fn check(&self) -> Result<(), TrainError> {
        let mut mistakes = Mistakes::default();
        mistakes.require(!self.train.is_empty(), "no [[train]] file");
        self.model.check(&mut mistakes);
        self.schedule.check(&mut mistakes);
        self.augmentation.check(&mut mistakes);
        for source in self.train.iter().chain(&self.validation).chain(&self.test) {
            mistakes.require(
                (0.0..=0.5).contains(&source.hold_out),
                "hold_out must be 0 to 0.5",
            );
            mistakes.require(
                (1..=100).contains(&source.repeat),
                "repeat must be 1 to 100",
            );
            if let Some(map) = &source.map {
                mistakes.require(
                    self.maps.contains_key(map),
                    &format!("no map is called {map:?}"),
                );
            }
        }
        if mistakes.0.is_empty() {
            Ok(())
        } else {
            Err(TrainError::Recipe(mistakes.0.join("; ")))
        }
    }
}

/// The mistakes in a recipe, one sentence each.
#[derive(Debug, Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn require(&mut self, holds: bool, what: &str) {
        if !holds {
            self.0.push(what.to_owned());
        }
    }
}

impl Shape {
    fn check(&self, mistakes: &mut Mistakes) {
        mistakes.require(
            (1..=1024).contains(&self.layers),
            "model.layers must be 1 to 1024",
        );
        mistakes.require(
            (1..=1 << 16).contains(&self.intermediate),
            "model.intermediate must be 1 to 65536",
        );
        mistakes.require(
            self.heads >= 1
                && (1..=1 << 14).contains(&self.hidden)
                && self.hidden.is_multiple_of(self.heads),
            "model.hidden must be 1 to 16384 and a multiple of model.heads",
        );
        mistakes.require(
            (8..=1 << 14).contains(&self.max_positions),
            "model.max_positions must be 8 to 16384",
        );
        mistakes.require(
            (32..=1 << 20).contains(&self.vocabulary),
            "model.vocabulary must be 32 to 1048576",
        );
        mistakes.require(
            (0.0..=0.9).contains(&self.dropout),
            "model.dropout must be 0 to 0.9",
        );
    }
}

impl Schedule {
    fn check(&self, mistakes: &mut Mistakes) {
        mistakes.require(self.epochs >= 1, "schedule.epochs must be at least 1");
        mistakes.require(
            (1..=1 << 16).contains(&self.batch),
            "schedule.batch must be 1 to 65536",
        );
        mistakes.require(
            self.learning_rate > 0.0 && self.learning_rate.is_finite(),
            "schedule.learning_rate must be positive",
        );
        mistakes.require(
            (0.0..1.0).contains(&self.warm_up),
            "schedule.warm_up must be 0 to 1",
        );
        mistakes.require(
            self.weight_decay >= 0.0,
            "schedule.weight_decay must not be negative",
        );
        mistakes.require(
            (0.0..=0.5).contains(&self.label_smoothing),
            "schedule.label_smoothing must be 0 to 0.5",
        );
        mistakes.require(
            self.gradient_norm_max > 0.0,
            "schedule.gradient_norm_max must be positive",
        );
    }
}

impl Augmentation {
    fn check(&self, mistakes: &mut Mistakes) {
        mistakes.require(
            (0.5..=1.0).contains(&self.fragment_purity_min),
            "augmentation.fragment_purity_min must be 0.5 to 1",
        );
        for share in [
            self.fragments,
            self.foreign,
            self.counterfactuals,
            self.joined,
        ] {
            mistakes.require(
                (0.0..=4.0).contains(&share),
                "augmentation shares must be 0 to 4",
            );
        }
        for probability in [self.punctuation, self.typos, self.unknown] {
            mistakes.require(
                (0.0..=0.5).contains(&probability),
                "augmentation chances must be 0 to 0.5",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let mut recipe = Recipe::for_file(Path::new("a.jsonl"));
        recipe.model.heads = 3;
        recipe.schedule.epochs = 0;
        recipe.train[0].map = Some("absent".into());
        let message = recipe.check().expect_err("three mistakes").to_string();
        for part in ["heads", "epochs", "absent"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
