//! Requests to a [`Classifier`](super::Classifier), and its predictions.

use std::time::Duration;

use crate::model::{Labels, Text, TooLong};

/// A description of the model in use.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// Where it was loaded from.
    pub origin: String,
    /// The data type that its engine computes in, by PyTorch's name.
    pub dtype: &'static str,
    /// The classes.
    pub labels: Labels,
    /// The longest sequence, special tokens included.
    pub max_tokens: usize,
    /// Whether it runs on a GPU.
    pub is_on_device: bool,
}

/// Texts to classify.
#[derive(Debug, Clone)]
pub struct Request {
    /// The texts. Each gets a prediction.
    pub texts: Vec<Text>,
    /// What to do with a text that is too long for the model.
    pub too_long: TooLong,
}

/// The prediction for one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// One logit per class, in the order of the classifier's rows.
    pub logits: Vec<f32>,
    /// Tokens that the model saw, including special tokens.
    pub tokens: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
    /// Time that its batch spent in the engine.
    pub computed: Duration,
}

/// Predictions in the order of the texts, and the labels of the classes.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    /// The classes.
    pub labels: Labels,
    /// One prediction per text.
    pub items: Vec<Prediction>,
    /// Time that tokenizing all texts took.
    pub tokenized: Duration,
    /// Time in queue and engine, until the last text was answered.
    pub inside: Duration,
    /// The number of the model that made them.
    pub generation: u64,
}

impl Predictions {
    /// Removes and returns the first `count` predictions.
    pub fn take(&mut self, count: usize) -> Self {
        Self {
            items: self.items.drain(..count.min(self.items.len())).collect(),
            labels: self.labels.clone(),
            ..*self
        }
    }
}
