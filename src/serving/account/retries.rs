//! Retries of requests that were refused lately: they are no new load.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// What names a request across its retries: the same for each of them, another for every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64);

/// How a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Try {
    /// What names it across its retries, if anything.
    pub identity: Option<Identity>,
    /// Whether it says itself that it has been tried before.
    pub is_retry: bool,
}

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

/// Requests refused lately that have a name, so that a retry is known.
///
/// A table of hashes in which newer ones replace older ones: what is forgotten counts once more, and two
/// of the same hash count as one. Each place has the upper half of a hash, the minute, and how often the
/// request has come back: a name that comes back more often than anybody tries names more than one
/// request.
#[derive(Debug)]
pub(super) struct Refused {
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
    pub(super) fn new() -> Self {
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

    pub(super) fn remember(&self, identity: Identity) {
        let place = self.place(identity);
        let before = place.load(Ordering::Relaxed);
        let same = before & HASH_MASK == identity.0 & HASH_MASK;
        let tries = if same { before & MINUTE_MASK } else { 0 };
        // Zero is an empty place.
        let now = identity.0 & HASH_MASK | self.minute() << 16 | tries.max(1);
        place.store(now, Ordering::Relaxed);
    }

    /// Whether the request was refused lately.
    pub(super) fn is_back(&self, identity: Identity) -> bool {
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
