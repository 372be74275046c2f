//! Measured batches.

use std::time::Duration;

/// The size and the time of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchSample {
    /// Tokens of all its texts.
    pub(crate) tokens: f64,
    /// Seconds that it took.
    pub(crate) seconds: f64,
}

/// The times of one run of a batch, ordered by elapsed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchTime {
    /// Elapsed time.
    pub(crate) took: Duration,
    /// Effort of the engine.
    pub(crate) spent: Duration,
}
