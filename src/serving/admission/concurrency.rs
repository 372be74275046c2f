//! Permits: the bound on requests in flight. Dropping a permit returns it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::Metrics;

/// The permits in use and their limit.
#[derive(Debug)]
pub(crate) struct Concurrency {
    in_flight: AtomicUsize,
    max: AtomicUsize,
    metrics: Metrics,
}

/// All permits are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoPermit {
    /// The limit.
    pub(crate) max: usize,
}

impl Concurrency {
    pub(crate) fn new(max: usize, metrics: Metrics) -> Arc<Self> {
        metrics.concurrency_limit.set(max as i64);
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            metrics,
        })
    }

    /// Raises the limit to `max`. Returns whether it was lower.
    pub(crate) fn grow(&self, max: usize) -> bool {
        let before = self.max.fetch_max(max, Ordering::AcqRel);
        if before < max {
            self.metrics.concurrency_limit.set(max as i64);
        }
        before < max
    }

    /// Checks whether a permit is free now.
    pub(crate) fn check(&self) -> Result<(), NoPermit> {
        let max = self.max.load(Ordering::Acquire);
        if self.in_flight.load(Ordering::Acquire) < max {
            Ok(())
        } else {
            Err(NoPermit { max })
        }
    }

    /// Takes a permit, if one is free.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Permit, NoPermit> {
        let max = self.max.load(Ordering::Acquire);
        let room = |now: usize| (now < max).then_some(now + 1);
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| NoPermit { max })?;
        self.metrics.in_flight.inc();
        Ok(Permit {
            concurrency: Arc::clone(self),
        })
    }
}

/// One request in flight.
#[derive(Debug)]
pub(crate) struct Permit {
    concurrency: Arc<Concurrency>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.concurrency.metrics.in_flight.dec();
        self.concurrency.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
