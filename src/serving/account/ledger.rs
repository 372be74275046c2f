//! The ledger of requests: each is entered on arrival and ends answered, refused or abandoned.
//!
//! The three outcomes therefore always add up to the requests offered. Each event is counted only here, both in
//! the metrics ([`Metrics`]) and for the hints ([`Arrivals`]).

use std::time::Duration;

use super::arrivals::Arrivals;
use super::retries::Attempt;
use crate::error::{Blame, Refusal};
use crate::metrics::{Metrics, Outcome, SurfaceLabel};

/// Counts requests and their outcomes.
#[derive(Debug)]
pub(crate) struct RequestLedger {
    pub(crate) metrics: Metrics,
    pub(crate) arrivals: Arrivals,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
enum RequestSource {
    /// A client. `counts` says whether the attempt counts as load; a retry does not.
    Client { attempt: Attempt, counts: bool },
    /// A log record. It counted as load when it was written.
    Log,
}

/// How long an answered request took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    /// From its arrival.
    pub(crate) total: Duration,
    /// From its complete body; the time before is the client's.
    pub(crate) whole: Duration,
    /// The part of `whole` in queue and engine.
    pub(crate) inside: Duration,
}

impl RequestLedger {
    /// An empty ledger. Answers that take longer than the objective count as late.
    pub(crate) fn new(metrics: Metrics, objective: Option<Duration>) -> Self {
        Self {
            metrics,
            arrivals: Arrivals::new(objective),
        }
    }

    /// Enters a client's request.
    pub(crate) fn offer(&self, surface: SurfaceLabel, attempt: Attempt) -> LedgerEntry<'_> {
        let counts = self.arrivals.arrive(attempt);
        self.enter(surface, RequestSource::Client { attempt, counts })
    }

    /// Enters a log record.
    pub(crate) fn offer_record(&self) -> LedgerEntry<'_> {
        self.enter(SurfaceLabel::KAFKA, RequestSource::Log)
    }

    fn enter(&self, surface: SurfaceLabel, source: RequestSource) -> LedgerEntry<'_> {
        self.metrics.offered.inc();
        LedgerEntry {
            ledger: self,
            surface,
            source,
            outcome: Outcome::Abandoned,
            tokens: 0,
            has_expired: false,
            large: 0,
        }
    }
}

/// A request in the ledger. Dropped without an outcome, it counts as abandoned by its client.
#[derive(Debug)]
pub(crate) struct LedgerEntry<'a> {
    ledger: &'a RequestLedger,
    surface: SurfaceLabel,
    source: RequestSource,
    outcome: Outcome,
    /// Expected tokens of all texts; 0 until the request is admitted.
    tokens: usize,
    /// Whether the server did not answer before the deadline, though the request was complete.
    has_expired: bool,
    /// Size of a large body, as announced or read; 0 if the client is to blame for the outcome.
    large: usize,
}

impl LedgerEntry<'_> {
    /// Corrects the surface of the request.
    pub(crate) fn set_surface(&mut self, surface: SurfaceLabel) {
        self.surface = surface;
    }

    /// Sets the expected tokens of all texts.
    pub(crate) fn set_tokens(&mut self, tokens: usize) {
        self.tokens = tokens;
    }

    /// Says that the server did not answer before the deadline, though the request was complete.
    pub(crate) fn set_expired(&mut self) {
        self.has_expired = true;
    }

    /// Sets the size of a large body.
    pub(crate) fn set_large(&mut self, bytes: usize) {
        self.large = bytes;
    }

    /// Ends the request with a refusal.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        let RequestLedger { metrics, arrivals } = self.ledger;
        metrics.refused.with_label_values(&[refusal.reason()]).inc();
        match self.source {
            RequestSource::Client { attempt, counts } => {
                arrivals.refuse(refusal, attempt, counts);
                if counts && self.has_expired {
                    arrivals.expire();
                }
            }
            RequestSource::Log if refusal.blame() == Blame::Server => arrivals.fail_from_log(),
            RequestSource::Log => {}
        }
        if refusal.blame() == Blame::Client {
            // More replicas would change nothing.
            self.large = 0;
        }
        self.outcome = Outcome::Refused;
    }

    /// Ends a client's request with an answer.
    pub(crate) fn answer(&mut self, latency: Latency) {
        let RequestLedger { metrics, arrivals } = self.ledger;
        metrics.request_seconds.observe(latency.total.as_secs_f64());
        let outside = latency.whole.saturating_sub(latency.inside);
        arrivals.answer(self.tokens, latency.whole, outside);
        self.outcome = Outcome::Answered;
    }

    /// Ends a record with an answer. Nobody waited for it, so its time is not a latency.
    pub(crate) fn answer_from_log(&mut self) {
        self.ledger.arrivals.answer_from_log(self.tokens);
        self.outcome = Outcome::Answered;
    }

    /// Ends the request as answered without the engine. More replicas would change nothing.
    pub(crate) fn answer_without_engine(&mut self) {
        if let RequestSource::Client { counts, .. } = self.source {
            self.ledger.arrivals.answer_without_engine(counts);
        }
        self.large = 0;
        self.outcome = Outcome::Answered;
    }
}

impl Drop for LedgerEntry<'_> {
    fn drop(&mut self) {
        if let RequestSource::Client { attempt, counts } = self.source {
            if self.outcome == Outcome::Abandoned {
                self.ledger.arrivals.abandon(attempt);
            }
            if counts {
                self.ledger.arrivals.offer_large(self.large);
            }
        }
        self.ledger.metrics.end(self.surface, self.outcome);
    }
}
