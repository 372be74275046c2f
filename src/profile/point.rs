//! Measured batches, and batches that were left out.

use serde::{Deserialize, Serialize};

use super::grid::Shape;

/// The times of one batch shape, in seconds. They are wall clock times unless the field says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The shape of the batch.
    #[serde(flatten)]
    pub shape: Shape,
    /// The median.
    pub seconds_median: f64,
    /// The first quartile.
    pub seconds_q1: f64,
    /// The third quartile.
    pub seconds_q3: f64,
    /// The median CPU time of the engine's thread, which excludes time that other processes used the core.
    /// `None` where that thread does not compute alone: with several threads, or on a device.
    pub cpu_seconds_median: Option<f64>,
    /// The number of runs.
    pub repeats: usize,
}

/// A batch shape that was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// The shape of the batch.
    #[serde(flatten)]
    pub shape: Shape,
    /// Why it was not measured.
    pub reason: SkipReason,
    /// Its expected time by the line through the earlier points; 0 if that is not known.
    pub seconds_expected: f64,
}

/// Why a batch shape was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// There was not enough time.
    Time,
    /// The device has not enough memory.
    Memory,
}
