//! What has come, for those who size the fleet: counted when it comes, whatever becomes of it.
//!
//! Only counters, to be added to from any thread; rates and smoothing are made of them elsewhere
//! (`autoscale`), and nothing here is read by the admission.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::retries::{Refused, Try};
use super::window::Recorder;
use crate::error::{Blame, Refusal};

/// What has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests, each once however often it was tried again.
    pub offered: u64,
    /// Requests that were refused because of the load or of the server's state.
    pub shed: u64,
    /// Of these, requests for which there was no room or no time.
    pub crowded: u64,
    /// Requests that counted as offered and were refused because of themselves, or answered without the
    /// engine: nothing that more replicas would change.
    pub mistaken: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that ended with an error of the server's.
    pub failed: u64,
    /// Requests whose size is known, their texts, their tokens, and the sum of the squares of these.
    pub sized: u64,
    /// See [`sized`](Self::sized).
    pub texts: u64,
    /// See [`sized`](Self::sized).
    pub tokens: u64,
    /// See [`sized`](Self::sized).
    pub squares: u64,
    /// Bytes of large bodies in what was offered, and those that were read, whatever became of them. What they
    /// cost beside the engine goes with their size.
    pub large: u64,
    /// See [`large`](Self::large).
    pub large_read: u64,
}

/// The counters.
#[derive(Debug)]
pub struct Arrivals {
    offered: AtomicU64,
    shed: AtomicU64,
    crowded: AtomicU64,
    mistaken: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    sized: AtomicU64,
    texts: AtomicU64,
    tokens: AtomicU64,
    squares: AtomicU64,
    large: AtomicU64,
    large_read: AtomicU64,
    /// Requests that wait in a log elsewhere and are this server's to read.
    backlog: AtomicU64,
    refused: Refused,
    /// Latencies of answered requests.
    pub latency: Recorder,
    /// Of these, what passed outside of queue and engine.
    pub overhead: Recorder,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            offered: zero(),
            shed: zero(),
            crowded: zero(),
            mistaken: zero(),
            answered: zero(),
            failed: zero(),
            sized: zero(),
            texts: zero(),
            tokens: zero(),
            squares: zero(),
            large: zero(),
            large_read: zero(),
            backlog: zero(),
            refused: Refused::new(),
            latency: Recorder::new(),
            overhead: Recorder::new(),
        }
    }

    /// A request has come. Whether it counts: one that was refused lately and is tried again does not.
    pub(crate) fn arrive(&self, attempt: Try) -> bool {
        let is_back = || {
            attempt
                .identity
                .is_some_and(|name| self.refused.is_back(name))
        };
        let counts = !attempt.is_retry && !is_back();
        if counts {
            self.offered.fetch_add(1, Ordering::Relaxed);
        }
        counts
    }

    /// So many requests were written to a log that is this server's to read. They count when they are
    /// written: when they are read is this server's doing.
    pub fn arrive_in_log(&self, count: u64) {
        self.offered.fetch_add(count, Ordering::Relaxed);
    }

    /// So many requests wait in the log.
    pub fn set_backlog(&self, count: u64) {
        self.backlog.store(count, Ordering::Relaxed);
    }

    /// Requests that wait in a log elsewhere and are this server's to read.
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// A request of a log was answered; nobody waited for it, so how long it took says nothing of
    /// latencies.
    pub(crate) fn answer_from_log(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A request of a log turned out to be none.
    pub fn dismiss_from_log(&self) {
        self.mistaken.fetch_add(1, Ordering::Relaxed);
    }

    /// A request of a log ended with an error of the server's.
    pub(crate) fn fail_from_log(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request turned out to have so many texts and tokens.
    pub(crate) fn size(&self, texts: usize, tokens: usize) {
        let tokens = tokens as u64;
        self.sized.fetch_add(1, Ordering::Relaxed);
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        let square = tokens.saturating_mul(tokens);
        self.squares.fetch_add(square, Ordering::Relaxed);
    }

    /// A request that counts has ended, whose body has so many bytes or says so, where that is much.
    pub(crate) fn ask_large(&self, bytes: usize) {
        self.large.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// One was read.
    pub(crate) fn read_large(&self, bytes: usize) {
        self.large_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A request ends with `refusal`; `counts` is what [`arrive`](Self::arrive) said.
    pub(crate) fn refuse(&self, refusal: &Refusal, attempt: Try, counts: bool) {
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        match refusal.blame() {
            Blame::Load => {
                if let Some(identity) = attempt.identity {
                    self.refused.remember(identity);
                }
                add(&self.shed);
                if refusal.is_overload() {
                    add(&self.crowded);
                }
            }
            Blame::Server => {
                add(&self.failed);
            }
            // What was not counted as load cannot be taken from it either.
            Blame::Client if counts => {
                add(&self.mistaken);
            }
            Blame::Client => {}
        }
    }

    /// A request was answered without the engine.
    pub(crate) fn settle(&self, counts: bool) {
        if counts {
            self.mistaken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The client of a request has left; it may ask again.
    pub(crate) fn abandon(&self, attempt: Try) {
        if let Some(identity) = attempt.identity {
            self.refused.remember(identity);
        }
    }

    /// A request was answered `took` after it was whole, of which `outside` outside of queue and engine.
    pub(crate) fn answer(&self, took: Duration, outside: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.latency.record(took);
        self.overhead.record(outside);
    }

    /// All counts. Each is exact; they are not of one instant.
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            offered: load(&self.offered),
            shed: load(&self.shed),
            crowded: load(&self.crowded),
            mistaken: load(&self.mistaken),
            answered: load(&self.answered),
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
mod tests {
    use super::super::retries::Identity;
    use super::*;

    fn named(name: &str) -> Try {
        Try {
            identity: Some(Identity::of([name.as_bytes()])),
            is_retry: false,
        }
    }

    fn overloaded() -> Refusal {
        Refusal::Concurrency {
            max: 1,
            retry_after: Duration::ZERO,
        }
    }

    fn come_and_be_refused(arrivals: &Arrivals, attempt: Try, refusal: &Refusal) {
        let counts = arrivals.arrive(attempt);
        arrivals.refuse(refusal, attempt, counts);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_of_a_refused_request_does_not_count_again() {
        let arrivals = Arrivals::new();
        for _ in 0..5 {
            come_and_be_refused(&arrivals, named("a"), &overloaded());
        }
        assert!(arrivals.arrive(named("b")));
        let counts = arrivals.counts();
        assert_eq!((counts.offered, counts.shed, counts.crowded), (2, 5, 5));
        tokio::time::advance(Duration::from_secs(12 * 60)).await;
        assert!(arrivals.arrive(named("a")), "it is forgotten in time");
        let again = Try {
            is_retry: true,
            ..named("c")
        };
        assert!(!arrivals.arrive(again), "it says so itself");
        arrivals.abandon(named("d"));
        assert!(!arrivals.arrive(named("d")), "its client has left before");
    }

    /// Refused once for the load, then again and again for its own sake: that takes nobody's place.
    #[test]
    fn mistakes_of_a_retry_are_not_taken_from_the_load_of_others() {
        let arrivals = Arrivals::new();
        come_and_be_refused(&arrivals, named("a"), &Refusal::Deadline);
        for _ in 0..30 {
            come_and_be_refused(&arrivals, named("a"), &Refusal::Empty);
        }
        let counts = arrivals.counts();
        assert_eq!((counts.offered, counts.mistaken), (1, 0));
    }

    #[test]
    fn a_name_that_everybody_has_hides_nothing_for_long() {
        let arrivals = Arrivals::new();
        for _ in 0..1000 {
            come_and_be_refused(&arrivals, named("the same"), &overloaded());
        }
        assert!(arrivals.counts().offered > 900);
    }

    #[test]
    fn requests_without_a_name_all_count() {
        let arrivals = Arrivals::new();
        for _ in 0..10 {
            come_and_be_refused(&arrivals, Try::default(), &overloaded());
        }
        assert_eq!(arrivals.counts().offered, 10);
    }

    #[test]
    fn a_refusal_is_counted_by_whose_doing_it_is() {
        let arrivals = Arrivals::new();
        let refusals = [
            overloaded(),
            Refusal::Loading,
            Refusal::Empty,
            Refusal::Engine("broken".to_owned()),
        ];
        for refusal in refusals {
            come_and_be_refused(&arrivals, Try::default(), &refusal);
        }
        let counts = arrivals.counts();
        assert_eq!((counts.shed, counts.crowded), (2, 1));
        assert_eq!((counts.mistaken, counts.failed), (1, 1));
    }
}
