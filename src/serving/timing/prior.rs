//! The part of a profile (`intentd profile`) that serving needs.

/// Times of batches of one model on one engine, from a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// The profile's name in messages.
    pub name: String,
    /// The model: [`Checkpoint::digest`](crate::model::Checkpoint::digest).
    pub model: String,
    /// The engine: [`Engine::description`](crate::engine::Engine::description).
    pub engine: String,
    /// The batches, at least one.
    pub batches: Vec<PriorBatch>,
}

/// A batch of equal texts in a profile. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PriorBatch {
    /// Texts in it.
    pub texts: usize,
    /// Tokens of each text.
    pub tokens: usize,
    /// Median elapsed time.
    pub took: f64,
    /// Median effort of the engine.
    pub spent: f64,
    /// First and third quartile of the elapsed time.
    pub quartiles: Quartiles,
}

/// The quartiles of a time in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    /// The first quartile.
    pub first: f64,
    /// The third quartile.
    pub third: f64,
}

impl PriorBatch {
    /// Tokens of all its texts.
    pub(super) fn total(&self) -> usize {
        self.texts * self.tokens
    }
}
