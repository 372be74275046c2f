//! What goes into a [`Classifier`](super::Classifier) and what comes out.

use super::batcher::BatchLimits;
use crate::model::{Labels, Text, TooLong};

/// The bounds of a [`Classifier`](super::Classifier).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests admitted and not yet answered.
    pub concurrency_max: usize,
    /// Texts admitted and not yet taken by the engine.
    pub queue_max: usize,
    /// Texts in one request.
    pub texts_max: usize,
    /// The size of a batch.
    pub batch: BatchLimits,
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
}

/// Predictions in the order of the texts, and the names to read them with.
#[derive(Debug, Clone)]
pub struct Predictions {
    /// The classes.
    pub labels: Labels,
    /// One prediction a text.
    pub items: Vec<Prediction>,
}
