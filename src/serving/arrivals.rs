//! What has come, for those who size the fleet: counted when it comes, whatever becomes of it.
//!
//! Only counters, to be added to from any thread; rates and smoothing are made of them elsewhere
//! (`autoscale`), and nothing here is read by the admission.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::window::Recorder;
use crate::error::{Blame, Refusal};

/// What names a request across its retries: the same for each of them, another for every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64);

impl Identity {
    /// The identity that these bytes give, in this process.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        for part in parts {
            part.hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// What has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests, each once however often it was tried again.
    pub offered: u64,
    /// Requests that were refused because of the load or of the server's state.
    pub shed: u64,
    /// Requests that were refused because of themselves: nothing that more replicas would change.
    pub mistaken: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that ended with an error of the server's.
    pub failed: u64,
    /// Requests whose size is known, their tokens, and the sum of the squares of these.
    pub sized: u64,
    /// See [`sized`](Self::sized).
    pub tokens: u64,
    /// See [`sized`](Self::sized).
    pub squares: u64,
}

/// The counters.
#[derive(Debug)]
pub struct Arrivals {
    offered: AtomicU64,
    shed: AtomicU64,
    mistaken: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    sized: AtomicU64,
    tokens: AtomicU64,
    squares: AtomicU64,
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
            mistaken: zero(),
            answered: zero(),
            failed: zero(),
            sized: zero(),
            tokens: zero(),
            squares: zero(),
            refused: Refused::new(),
            latency: Recorder::new(),
            overhead: Recorder::new(),
        }
    }

    /// A request has come; one that was refused lately and is tried again does not count once more.
    pub(crate) fn arrive(&self, identity: Option<Identity>) {
        if !identity.is_some_and(|identity| self.refused.is_back(identity)) {
            self.offered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request turned out to have so many tokens.
    pub(crate) fn size(&self, tokens: usize) {
        let tokens = tokens as u64;
        self.sized.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        let square = tokens.saturating_mul(tokens);
        self.squares.fetch_add(square, Ordering::Relaxed);
    }

    /// A request ends with `refusal`.
    pub(crate) fn refuse(&self, refusal: &Refusal, identity: Option<Identity>) {
        let count = match refusal.blame() {
            Blame::Load => {
                if let Some(identity) = identity {
                    self.refused.remember(identity);
                }
                &self.shed
            }
            Blame::Server => &self.failed,
            Blame::Client => &self.mistaken,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered after `took`, of which `outside` outside of queue and engine.
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
            mistaken: load(&self.mistaken),
            answered: load(&self.answered),
            failed: load(&self.failed),
            sized: load(&self.sized),
            tokens: load(&self.tokens),
            squares: load(&self.squares),
        }
    }
}

/// Requests refused lately that have a name, so that a retry is known.
///
/// A table of hashes in which newer ones replace older ones: what is forgotten counts once more, and two
/// of the same hash count as one. Each place has the upper half of a hash, the minute, and how often the
/// request has come back: a name that comes back more often than anybody tries names more than one
/// request.
#[derive(Debug)]
struct Refused {
    places: Vec<AtomicU64>,
    origin: Instant,
}

const PLACES: usize = 1 << 16;

/// Times that a request is tried again at most: a KafkaSource tries ten times unless told otherwise.
const TRIES_MAX: u64 = 32;

/// How long a refused request is remembered, in minutes: the pauses of a KafkaSource grow to five.
const MINUTES: u64 = 10;

const HASH_MASK: u64 = !0 << 32;
const MINUTE_MASK: u64 = 0xffff;

impl Refused {
    fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            origin: Instant::now(),
        }
    }

    fn place(&self, identity: Identity) -> &AtomicU64 {
        &self.places[identity.0 as usize % PLACES]
    }

    fn minute(&self) -> u64 {
        (self.origin.elapsed().as_secs() / 60) & MINUTE_MASK
    }

    fn remember(&self, identity: Identity) {
        let place = self.place(identity);
        let before = place.load(Ordering::Relaxed);
        let same = before & HASH_MASK == identity.0 & HASH_MASK;
        let tries = if same { before & MINUTE_MASK } else { 0 };
        // Zero is an empty place.
        let now = identity.0 & HASH_MASK | self.minute() << 16 | tries.max(1);
        place.store(now, Ordering::Relaxed);
    }

    /// Whether the request was refused lately.
    fn is_back(&self, identity: Identity) -> bool {
        let place = self.place(identity);
        let entry = place.load(Ordering::Relaxed);
        let (minute, tries) = (entry >> 16 & MINUTE_MASK, entry & MINUTE_MASK);
        let age = self.minute().wrapping_sub(minute) & MINUTE_MASK;
        if tries == 0 || entry & HASH_MASK != identity.0 & HASH_MASK || age > MINUTES {
            return false;
        }
        if tries > TRIES_MAX {
            return false;
        }
        place.store(entry + 1, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Option<Identity> {
        Some(Identity::of([name.as_bytes()]))
    }

    fn overloaded() -> Refusal {
        Refusal::Concurrency {
            max: 1,
            retry_after: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_of_a_refused_request_does_not_count_again() {
        let arrivals = Arrivals::new();
        for _ in 0..5 {
            arrivals.arrive(named("a"));
            arrivals.refuse(&overloaded(), named("a"));
        }
        arrivals.arrive(named("b"));
        let counts = arrivals.counts();
        assert_eq!((counts.offered, counts.shed), (2, 5));
        tokio::time::advance(Duration::from_secs(12 * 60)).await;
        arrivals.arrive(named("a"));
        assert_eq!(arrivals.counts().offered, 3, "it is forgotten in time");
    }

    #[test]
    fn a_name_that_everybody_has_hides_nothing_for_long() {
        let arrivals = Arrivals::new();
        for _ in 0..1000 {
            arrivals.arrive(named("the same"));
            arrivals.refuse(&overloaded(), named("the same"));
        }
        assert!(arrivals.counts().offered > 900);
    }

    #[test]
    fn requests_without_a_name_all_count() {
        let arrivals = Arrivals::new();
        for _ in 0..10 {
            arrivals.arrive(None);
            arrivals.refuse(&overloaded(), None);
        }
        assert_eq!(arrivals.counts().offered, 10);
    }

    #[test]
    fn a_refusal_is_counted_by_whose_doing_it_is() {
        let arrivals = Arrivals::new();
        arrivals.refuse(&overloaded(), None);
        arrivals.refuse(&Refusal::Empty, None);
        arrivals.refuse(&Refusal::Engine("broken".to_owned()), None);
        let counts = arrivals.counts();
        assert_eq!((counts.shed, counts.mistaken, counts.failed), (1, 1, 1));
    }
}
