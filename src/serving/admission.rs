//! The gate: a permit for a request, or a refusal, before any work is done for it.
//!
//! Bounds the requests in flight. A permit is given back when it is dropped, by an answer, a
//! refusal or a client that leaves; how the request ended is counted at the same moment, so the
//! outcomes always add up to the requests offered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::error::Refusal;
use crate::metrics::{Metrics, Outcome};

/// The gate.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: AtomicUsize,
    max: usize,
    metrics: Metrics,
}

impl Admission {
    pub(crate) fn new(max: usize, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            max,
            metrics,
        })
    }

    /// Lets one request in, or refuses it.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let room = |now: usize| (now < self.max).then_some(now + 1);
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| Refusal::Concurrency { max: self.max })?;
        self.metrics.in_flight.inc();
        Ok(Permit {
            admission: Arc::clone(self),
            since: Instant::now(),
            outcome: Outcome::Abandoned,
        })
    }
}

/// One request in flight. Dropped without [`answered`](Self::answered) or
/// [`refused`](Self::refused), it counts as abandoned.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    since: Instant,
    outcome: Outcome,
}

impl Permit {
    /// When the request was admitted.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Ends the request with a prediction.
    pub(crate) fn answered(mut self) {
        self.admission
            .metrics
            .request_seconds
            .observe(self.since.elapsed().as_secs_f64());
        self.outcome = Outcome::Answered;
    }

    /// Ends the request with a refusal.
    pub(crate) fn refused(mut self, refusal: &Refusal) {
        self.admission
            .metrics
            .refused
            .with_label_values(&[refusal.reason()])
            .inc();
        self.outcome = Outcome::Refused;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let metrics = &self.admission.metrics;
        metrics.ended(self.outcome).inc();
        metrics.in_flight.dec();
        self.admission.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
