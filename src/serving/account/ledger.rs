//! The ledger of requests: each is entered when it comes and ends answered, refused or abandoned.
//!
//! So the three outcomes always add up to what was offered. Each event is counted here and nowhere else, both in the
//! metrics ([`Metrics`]) and for the hints ([`Arrivals`]).

use std::time::Duration;

use super::arrivals::Arrivals;
use super::retries::Try;
use crate::error::{Blame, Refusal};
use crate::metrics::{Metrics, Outcome, Surface};

/// What is counted, and where.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) metrics: Metrics,
    pub(crate) arrivals: Arrivals,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// A client, as an attempt that counts as load or not: a retry does not.
    Client { attempt: Try, counts: bool },
    /// A record of a log. It counted as load when it was written.
    Log,
}

/// How long an answered request took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    /// From its arrival.
    pub(crate) total: Duration,
    /// From when its body was complete: the rest is its client's doing.
    pub(crate) whole: Duration,
    /// Of that, in queue and engine.
    pub(crate) inside: Duration,
}

impl Ledger {
    /// With nothing in it.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            arrivals: Arrivals::new(),
        }
    }

    /// Enters a request of a client.
    pub(crate) fn offer(&self, surface: Surface, attempt: Try) -> Entry<'_> {
        let counts = self.arrivals.arrive(attempt);
        self.enter(surface, Source::Client { attempt, counts })
    }

    /// Enters a record of a log.
    pub(crate) fn offer_record(&self) -> Entry<'_> {
        self.enter(Surface::KAFKA, Source::Log)
    }

    fn enter(&self, surface: Surface, source: Source) -> Entry<'_> {
        self.metrics.offered.inc();
        Entry {
            ledger: self,
            surface,
            source,
            outcome: Outcome::Abandoned,
            large: 0,
        }
    }
}

/// A request in the ledger. Dropped without another end, it was abandoned by its client.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    ledger: &'a Ledger,
    surface: Surface,
    source: Source,
    outcome: Outcome,
    /// Bytes of its body, as announced or read, if it is a large one and its client is not to blame for its end.
    large: usize,
}

impl Entry<'_> {
    /// Corrects the surface that the request came by.
    pub(crate) fn set_surface(&mut self, surface: Surface) {
        self.surface = surface;
    }

    /// Sets the size of a large body.
    pub(crate) fn set_large(&mut self, bytes: usize) {
        self.large = bytes;
    }

    /// Ends the request with a refusal.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        let Ledger { metrics, arrivals } = self.ledger;
        metrics.refused.with_label_values(&[refusal.reason()]).inc();
        match self.source {
            Source::Client { attempt, counts } => arrivals.refuse(refusal, attempt, counts),
            Source::Log if refusal.blame() == Blame::Server => arrivals.fail_from_log(),
            Source::Log => {}
        }
        if refusal.blame() == Blame::Client {
            // Nothing that more replicas would change.
            self.large = 0;
        }
        self.outcome = Outcome::Refused;
    }

    /// Ends the request of a client with an answer.
    pub(crate) fn answer(&mut self, latency: Latency) {
        let Ledger { metrics, arrivals } = self.ledger;
        metrics.request_seconds.observe(latency.total.as_secs_f64());
        let outside = latency.whole.saturating_sub(latency.inside);
        arrivals.answer(latency.whole, outside);
        self.outcome = Outcome::Answered;
    }

    /// Ends a record with an answer. Nobody waited for it, so it says nothing about latencies.
    pub(crate) fn answer_from_log(&mut self) {
        self.ledger.arrivals.answer_from_log();
        self.outcome = Outcome::Answered;
    }

    /// Ends the request as answered without the engine: nothing that more replicas would change.
    pub(crate) fn answer_without_engine(&mut self) {
        if let Source::Client { counts, .. } = self.source {
            self.ledger.arrivals.settle(counts);
        }
        self.large = 0;
        self.outcome = Outcome::Answered;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Source::Client { attempt, counts } = self.source {
            if self.outcome == Outcome::Abandoned {
                self.ledger.arrivals.abandon(attempt);
            }
            if counts {
                self.ledger.arrivals.ask_large(self.large);
            }
        }
        self.ledger.metrics.end(self.surface, self.outcome);
    }
}
