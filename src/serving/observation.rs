//! An observation of a classifier for the hints. Taking one reads only atomics, so it never waits.

use std::time::Duration;

use super::admission::ByteCost;
use super::timing::EngineTime;

/// The state of a classifier at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The number of the loaded model, counting up.
    pub generation: u64,
    /// τ0: seconds per batch.
    pub setup: f64,
    /// α: seconds per token.
    pub token: f64,
    /// Mean relative error of the service curve.
    pub fit_error: f64,
    /// Batches that the curve was learned from.
    pub samples: u64,
    /// All batches since the model was loaded.
    pub batches: u64,
    /// Tokens of the largest batch.
    pub batch_tokens: usize,
    /// Texts of the largest batch.
    pub batch_texts: usize,
    /// Whether the engine shares the cores with the rest of the process.
    pub shares_cores: bool,
    /// Whether the engine's thread computes alone, so that its CPU time is the cost of a batch.
    pub computes_alone: bool,
    /// The engine's time so far.
    pub engine: EngineTime,
    /// CPU time that a byte of a large body takes the host.
    pub byte: ByteCost,
    /// Tokens that wait for the engine.
    pub waiting_tokens: usize,
    /// Records that wait in a log.
    pub backlog: u64,
    /// Texts that wait for the engine.
    pub waiting_texts: usize,
    /// How long the oldest of them has waited.
    pub oldest_wait: Duration,
    /// Requests admitted and not yet answered.
    pub in_flight: usize,
}
