//! Permits: the bound on requests in flight. Dropping a permit gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::Metrics;

/// The permits that are out, and how many there are.
#[derive(Debug)]
pub(crate) struct Concurrency {
    in_flight: AtomicUsize,
    max: AtomicUsize,
    metrics: Metrics,
}

/// As many requests are in flight as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded {
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

    /// Raises the limit to `max`; whether it was lower.
    pub(crate) fn grow(&self, max: usize) -> bool {
        let before = self.max.fetch_max(max, Ordering::AcqRel);
        if before < max {
            self.metrics.concurrency_limit.set(max as i64);
        }
        before < max
    }

    /// Whether one more would be let in now.
    pub(crate) fn has_room(&self) -> Result<(), Crowded> {
        let max = self.max.load(Ordering::Acquire);
        if self.in_flight.load(Ordering::Acquire) < max {
            Ok(())
        } else {
            Err(Crowded { max })
        }
    }

    /// Lets one request in, or refuses it.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Permit, Crowded> {
        let max = self.max.load(Ordering::Acquire);
        let room = |now: usize| (now < max).then_some(now + 1);
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| Crowded { max })?;
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
