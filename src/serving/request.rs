//! What goes into a [`Classifier`](super::Classifier) and what comes out.

use std::time::Duration;

use crate::model::{Labels, Text, TooLong};

/// What is known of the model in use.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// Where it came from.
    pub origin: String,
    /// The type that its engine computes in, as PyTorch calls it.
    pub dtype: &'static str,
    /// The classes.
    pub labels: Labels,
    /// The longest sequence, special tokens included.
    pub max_tokens: usize,
    /// Whether it runs on a GPU.
    pub is_on_device: bool,
}

/// What a request wants to know.
#[derive(Debug, Clone)]
pub struct Request {
    /// The texts; each gets a prediction.
    pub texts: Vec<Text>,
    /// What to do with a text longer than the model takes.
    pub too_long: TooLong,
}

/// The answer to one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// One value a class, by row of the classifier.
    pub logits: Vec<f32>,
    /// Tokens the model saw, special ones included.
    pub tokens: usize,
    /// Whether the end of the text was cut off.
    pub truncated: bool,
    /// How long its batch spent in the engine.
    pub computed: Duration,
}

/// Predictions in the order of the texts, and the names to read them with.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    /// The classes.
    pub labels: Labels,
    /// One prediction a text.
    pub items: Vec<Prediction>,
    /// How long the texts took to be tokenized, all of them together.
    pub tokenized: Duration,
    /// How long queue and engine took, until the last text was answered.
    pub inside: Duration,
    /// Which of the models that this process has loaded has made them.
    pub generation: u64,
}

impl Predictions {
    /// Takes the first `count` of them.
    pub fn take(&mut self, count: usize) -> Self {
        Self {
            items: self.items.drain(..count.min(self.items.len())).collect(),
            labels: self.labels.clone(),
            ..*self
        }
    }
}
