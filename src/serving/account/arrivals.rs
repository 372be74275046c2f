//! Counters of arrivals and outcomes, from which `autoscale` computes the demand.
//!
//! An arrival counts when it happens, whatever its outcome. Any thread may count; `autoscale` computes and
//! smooths the rates. Admission reads nothing here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::retries::{Attempt, RecentRefusals};
use super::window::Recorder;
use crate::error::{Blame, Refusal};

/// The values of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Offered requests. A retry does not count again.
    pub offered: u64,
    /// The part of `offered` that was written to a log. It is counted now and then, many at once.
    pub logged: u64,
    /// Requests that were refused because of the load or the server's state.
    pub shed: u64,
    /// The part of `shed` that was refused because of overload: no permit, no slot or no time.
    pub overloaded: u64,
    /// Offered requests that missed the objective without an answer: they were refused because of overload or, where
    /// there is no objective, were not answered before their deadline. A retry does not count, nor a request that would
    /// have kept the objective but not its own deadline.
    pub unanswered: u64,
    /// Offered requests that are no demand: the client was to blame for the refusal, or the engine was not
    /// needed. More replicas would change nothing.
    pub discounted: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// The part of `answered` that took longer than the objective.
    pub late: u64,
    /// Expected tokens of answered requests.
    pub answered_tokens: u64,
    /// Those of the late ones.
    pub late_tokens: u64,
    /// The part of `answered` that were records of a log, for which nobody waited.
    pub records: u64,
    /// Their expected tokens.
    pub record_tokens: u64,
    /// Requests that failed because of a server error.
    pub failed: u64,
    /// Requests of known size. `texts` and `tokens` sum up theirs, `squares` the squares of the tokens.
    pub sized: u64,
    /// See [`sized`](Self::sized).
    pub texts: u64,
    /// See [`sized`](Self::sized).
    pub tokens: u64,
    /// See [`sized`](Self::sized).
    pub squares: u64,
    /// Bytes of large bodies: `large` those of offered requests, `large_read` those that were read, whatever the
    /// outcome. Their cost outside the engine grows with their size.
    pub large: u64,
    /// See [`large`](Self::large).
    pub large_read: u64,
}

/// The counters.
#[derive(Debug)]
pub struct Arrivals {
    offered: AtomicU64,
    logged: AtomicU64,
    shed: AtomicU64,
    overloaded: AtomicU64,
    unanswered: AtomicU64,
    discounted: AtomicU64,
    answered: AtomicU64,
    late: AtomicU64,
    answered_tokens: AtomicU64,
    late_tokens: AtomicU64,
    records: AtomicU64,
    record_tokens: AtomicU64,
    /// The latency objective, if any.
    objective: Option<Duration>,
    failed: AtomicU64,
    sized: AtomicU64,
    texts: AtomicU64,
    tokens: AtomicU64,
    squares: AtomicU64,
    large: AtomicU64,
    large_read: AtomicU64,
    /// Records assigned to this server that still wait in the log.
    backlog: AtomicU64,
    refused: RecentRefusals,
    /// Latencies of answered requests.
    pub latency: Recorder,
    /// The part of these latencies outside queue and engine.
    pub overhead: Recorder,
}

impl Arrivals {
    /// Nothing has arrived.
    pub(crate) fn new(objective: Option<Duration>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            offered: zero(),
            logged: zero(),
            shed: zero(),
            overloaded: zero(),
            unanswered: zero(),
            discounted: zero(),
            answered: zero(),
            late: zero(),
            answered_tokens: zero(),
            late_tokens: zero(),
            records: zero(),
            record_tokens: zero(),
            objective,
            failed: zero(),
            sized: zero(),
            texts: zero(),
            tokens: zero(),
            squares: zero(),
            large: zero(),
            large_read: zero(),
            backlog: zero(),
            refused: RecentRefusals::new(),
            latency: Recorder::new(),
            overhead: Recorder::new(),
        }
    }

    /// Counts an arrival, and returns whether it counts as load. A retry of a recently refused request does
    /// not.
    pub(crate) fn arrive(&self, attempt: Attempt) -> bool {
        let is_retry = || {
            attempt
                .identity
                .is_some_and(|name| self.refused.is_retry_of_refused(name))
        };
        let counts = !attempt.is_retry && !is_retry();
        if counts {
            self.offered.fetch_add(1, Ordering::Relaxed);
        }
        counts
    }

    /// Counts `count` records written to a log that this server reads. They count when they are written,
    /// because the server itself decides when it reads them.
    pub fn arrive_in_log(&self, count: u64) {
        self.logged.fetch_add(count, Ordering::Relaxed);
        self.offered.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the number of records that wait in the log.
    pub fn set_backlog(&self, count: u64) {
        self.backlog.store(count, Ordering::Relaxed);
    }

    /// The number of records assigned to this server that still wait in the log.
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Counts an answered record of `tokens`. Nobody waited for it, so its time is not a latency.
    pub(crate) fn answer_from_log(&self, tokens: usize) {
        let tokens = tokens as u64;
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.answered_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
        self.record_tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Counts a record that is not a request.
    pub fn dismiss_from_log(&self) {
        self.discounted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a record that failed because of a server error.
    pub(crate) fn fail_from_log(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the size of a request.
    pub(crate) fn record_size(&self, texts: usize, tokens: usize) {
        let tokens = tokens as u64;
        self.sized.fetch_add(1, Ordering::Relaxed);
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        let square = tokens.saturating_mul(tokens);
        self.squares.fetch_add(square, Ordering::Relaxed);
    }

    /// Counts the large body, as announced or read, of an offered request.
    pub(crate) fn offer_large(&self, bytes: usize) {
        self.large.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a large body that was read.
    pub(crate) fn read_large(&self, bytes: usize) {
        self.large_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a refusal. `counts` is the result of [`arrive`](Self::arrive).
    pub(crate) fn refuse(&self, refusal: &Refusal, attempt: Attempt, counts: bool) {
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        match refusal.blame() {
            Blame::Load => {
                if let Some(identity) = attempt.identity {
                    self.refused.remember(identity);
                }
                add(&self.shed);
                if refusal.is_overload() {
                    add(&self.overloaded);
                    let keeps = matches!(
                        refusal,
                        Refusal::Overloaded {
                            keeps_objective: true,
                            ..
                        }
                    );
                    if counts && !keeps {
                        add(&self.unanswered);
                    }
                }
            }
            Blame::Server => {
                add(&self.failed);
            }
            // A request that was not counted as load must not be subtracted from it.
            Blame::Client if counts => {
                add(&self.discounted);
            }
            Blame::Client => {}
        }
    }

    /// Counts a complete request that the server did not answer before its deadline. Where there is an objective, the
    /// deadline is the client's own and may be shorter.
    pub(crate) fn expire(&self) {
        if self.objective.is_none() {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that was answered without the engine.
    pub(crate) fn answer_without_engine(&self, counts: bool) {
        if counts {
            self.discounted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that a client has left. It may retry.
    pub(crate) fn abandon(&self, attempt: Attempt) {
        if let Some(identity) = attempt.identity {
            self.refused.remember(identity);
        }
    }

    /// Counts an answer to a request of `tokens`. It took `took` from the complete request, of which `outside` was
    /// outside queue and engine.
    pub(crate) fn answer(&self, tokens: usize, took: Duration, outside: Duration) {
        let tokens = tokens as u64;
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.answered_tokens.fetch_add(tokens, Ordering::Relaxed);
        if self.objective.is_some_and(|objective| took > objective) {
            self.late.fetch_add(1, Ordering::Relaxed);
            self.late_tokens.fetch_add(tokens, Ordering::Relaxed);
        }
        self.latency.record(took);
        self.overhead.record(outside);
    }

    /// The values of all counters. Each is exact, but they are not read at one instant.
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            offered: load(&self.offered),
            logged: load(&self.logged),
            shed: load(&self.shed),
            overloaded: load(&self.overloaded),
            unanswered: load(&self.unanswered),
            discounted: load(&self.discounted),
            answered: load(&self.answered),
            late: load(&self.late),
            answered_tokens: load(&self.answered_tokens),
            late_tokens: load(&self.late_tokens),
            records: load(&self.records),
            record_tokens: load(&self.record_tokens),
            failed: load(&self.failed),
            sized: load(&self.sized),
            texts: load(&self.texts),
            tokens: load(&self.tokens),
            squares: load(&self.squares),
            large: load(&self.large),
            large_read: load(&self.large_read),
        }
    }
}

#[cfg(test)]
mod tests;
