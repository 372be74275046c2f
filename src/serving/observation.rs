//! A snapshot of a classifier for the hints. Reads atomics only, so that it never waits.

use std::time::Duration;

use super::timing::EngineTime;

/// A classifier at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Counts up from one loaded model to the next.
    pub generation: u64,
    /// τ0 in seconds.
    pub setup: f64,
    /// α in seconds a token.
    pub token: f64,
    /// Mean distance of batches from that line, as a part of what they took.
    pub fit_error: f64,
    /// Batches that it was learnt from.
    pub batches: u64,
    /// Tokens of the largest batch.
    pub batch_tokens: usize,
    /// Texts of the largest batch.
    pub batch_texts: usize,
    /// Whether batches are computed on the cores that everything else runs on.
    pub shares_cores: bool,
    /// Whether they are computed by the engine's thread alone, whose CPU time is then what they take.
    pub computes_alone: bool,
    /// Time of the engine.
    pub engine: EngineTime,
    /// Seconds that a byte of a large body takes the host, and whether that is more than a guess.
    pub byte: (f64, bool),
    /// Tokens that wait.
    pub waiting_tokens: usize,
    /// Requests that wait in a log elsewhere.
    pub backlog: u64,
    /// Texts that wait.
    pub waiting_texts: usize,
    /// How long the oldest of them has.
    pub oldest_wait: Duration,
    /// Requests admitted and not yet answered.
    pub in_flight: usize,
}
