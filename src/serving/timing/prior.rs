//! A profile of a model on one kind of machine (`intentd profile`), as far as serving needs it.

/// What a profile says: how long batches of one model take on one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// What the profile is called in messages.
    pub name: String,
    /// The model: [`Checkpoint::digest`].
    pub model: String,
    /// The engine: [`Engine::description`].
    pub engine: String,
    /// The batches, at least one.
    pub batches: Vec<PriorBatch>,
}

/// A batch of equal texts in a profile; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PriorBatch {
    /// Texts in it.
    pub texts: usize,
    /// Tokens of each text.
    pub tokens: usize,
    /// From its start to its end: the median.
    pub took: f64,
    /// What the engine spent on it: the median.
    pub spent: f64,
    /// First and third quartile of the time from start to end.
    pub quartiles: (f64, f64),
}

impl PriorBatch {
    /// Tokens of all its texts.
    pub(super) fn total(&self) -> usize {
        self.texts * self.tokens
    }
}
