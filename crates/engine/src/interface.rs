//! The interface of all engines.

use std::time::Duration;

use intentd_kernels::Capacity;

use super::batch::{Logits, RaggedBatch};
use super::error::EngineError;

/// A classifier, ready to run.
pub trait Engine: Send + std::fmt::Debug {
    /// Type, device and threads, for logs and `inspect`: `cpu f32, 2 threads`.
    fn description(&self) -> String;

    /// The type it computes in, by its PyTorch name.
    fn dtype(&self) -> &'static str {
        "float32"
    }

    /// The number of batches that may be submitted and not yet collected.
    fn depth(&self) -> usize {
        1
    }

    /// The largest batch that can be submitted, if there is a limit.
    fn largest(&self) -> Option<Capacity> {
        None
    }

    /// Whether a device computes. A device may hang; a computation on the caller's thread always ends.
    fn is_on_device(&self) -> bool {
        self.depth() > 1
    }

    /// Whether the calling thread alone computes a batch. Its cost is then this thread's CPU time, independent of
    /// other load on the machine.
    fn computes_alone(&self) -> bool {
        false
    }

    /// Takes a batch, with at most `depth() - 1` batches in flight. The engine has copied its input on return, and
    /// may return before it has computed anything.
    ///
    /// # Errors
    /// See [`EngineError`]. The batch is then not in flight.
    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError>;

    /// Waits for the oldest batch in flight and returns its logits, `[sequences, labels]`.
    ///
    /// # Errors
    /// See [`EngineError`]. The batch is then no longer in flight.
    fn collect(&mut self) -> Result<Logits, EngineError>;

    /// Whether [`collect`](Self::collect) would return at once. Always true for an engine that computes on the
    /// caller's thread.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when the engine cannot be used any more.
    fn is_done(&mut self) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// Device time of all batches collected so far, if the device has a clock.
    fn device_time(&self) -> Option<Duration> {
        None
    }

    /// Does work outside the latency of requests, such as recording a graph. Called after a batch was answered; takes
    /// a few milliseconds at most.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when the engine cannot be used any more.
    fn upkeep(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Durations of the phases of loading, in order.
    fn startup_phases(&self) -> &[(&'static str, Duration)] {
        &[]
    }

    /// Runs one batch from start to end, with nothing else in flight.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn forward(&mut self, batch: &RaggedBatch) -> Result<Logits, EngineError> {
        self.submit(batch)?;
        self.collect()
    }
}
