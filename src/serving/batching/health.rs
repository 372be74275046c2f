//! Whether the engine answers: batches that fail one after the other, and calls that do not return.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What readiness needs to know of the engine beside that it is loaded.
#[derive(Debug)]
pub(crate) struct Health {
    /// Failed batches since the last that did not.
    failures: AtomicU32,
    failures_max: u32,
    stuck: AtomicBool,
}

impl Health {
    /// An engine that is well until `failures_max` batches have failed one after the other.
    pub(crate) fn new(failures_max: u32) -> Self {
        Self {
            failures: AtomicU32::new(0),
            failures_max,
            stuck: AtomicBool::new(false),
        }
    }

    /// A batch was answered.
    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.failures.swap(0, Ordering::Relaxed) >= self.failures_max {
            tracing::info!("the engine answers again");
        }
    }

    /// A batch failed, and whatever could be saved of it is under way again.
    pub(crate) fn failed(&self) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before + 1 == self.failures_max {
            let in_a_row = self.failures_max;
            tracing::error!(
                in_a_row,
                "batches fail (--engine-failures); not ready until one succeeds"
            );
        }
    }

    /// Whether so many batches have failed that no more requests should come.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= self.failures_max
    }

    /// The engine does not come back from a batch, or has come back.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Whether requests should go elsewhere for the time being.
    pub(crate) fn is_unwell(&self) -> bool {
        self.is_failing() || self.stuck.load(Ordering::Relaxed)
    }
}
