//! Whether the engine works: consecutive failed batches, and calls that do not return.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The engine's health, which readiness requires in addition to a loaded model.
#[derive(Debug)]
pub(crate) struct Health {
    /// Failed batches since the last success.
    failures: AtomicU32,
    failures_max: u32,
    stuck: AtomicBool,
}

impl Health {
    /// A healthy engine, which becomes unhealthy after `failures_max` consecutive failed batches.
    pub(crate) fn new(failures_max: u32) -> Self {
        Self {
            failures: AtomicU32::new(0),
            failures_max,
            stuck: AtomicBool::new(false),
        }
    }

    /// Records an answered batch.
    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.failures.swap(0, Ordering::Relaxed) >= self.failures_max {
            tracing::info!("the engine answers again");
        }
    }

    /// Records a batch that failed and was not split.
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

    /// Whether so many consecutive batches have failed that this server should get no requests.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= self.failures_max
    }

    /// Sets whether the engine hangs in a batch.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Whether requests should go to other replicas for now.
    pub(crate) fn is_unwell(&self) -> bool {
        self.is_failing() || self.stuck.load(Ordering::Relaxed)
    }
}
