//! Recognizes retries of recently refused requests, which are no new load.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Identifies a request across its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64);

/// An attempt at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempt {
    /// The identity of the request, if it has one.
    pub identity: Option<Identity>,
    /// Whether the attempt says itself that it is a retry.
    pub is_retry: bool,
}

impl Identity {
    /// The identity derived from these bytes. Valid in this process only.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        for part in parts {
            part.hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// Recently refused requests that have an identity.
///
/// A hash table in which newer requests replace older ones. A request that was forgotten counts again, and
/// two with the same hash count as one. Each entry holds the upper half of a hash, the minute, and the number
/// of retries. An identity with more retries than any client makes stands for more than one request.
#[derive(Debug)]
pub(super) struct RecentRefusals {
    entries: Vec<AtomicU64>,
    origin: Instant,
}

const ENTRIES: usize = 1 << 16;

/// Retries of one request at most. A KafkaSource makes ten by default.
const TRIES_MAX: u64 = 32;

/// How long a refused request is remembered, in minutes. The pauses of a KafkaSource grow to five.
const MINUTES: u64 = 10;

const HASH_MASK: u64 = !0 << 32;
const MINUTE_MASK: u64 = 0xffff;

impl RecentRefusals {
    pub(super) fn new() -> Self {
        Self {
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
            origin: Instant::now(),
        }
    }

    fn entry(&self, identity: Identity) -> &AtomicU64 {
        &self.entries[identity.0 as usize % ENTRIES]
    }

    fn minute(&self) -> u64 {
        (self.origin.elapsed().as_secs() / 60) & MINUTE_MASK
    }

    pub(super) fn remember(&self, identity: Identity) {
        let entry = self.entry(identity);
        let before = entry.load(Ordering::Relaxed);
        let same = before & HASH_MASK == identity.0 & HASH_MASK;
        let tries = if same { before & MINUTE_MASK } else { 0 };
        // Zero is an empty entry.
        let now = identity.0 & HASH_MASK | self.minute() << 16 | tries.max(1);
        entry.store(now, Ordering::Relaxed);
    }

    /// Whether the request was refused recently. Counts the retry.
    pub(super) fn is_retry_of_refused(&self, identity: Identity) -> bool {
        let entry = self.entry(identity);
        let value = entry.load(Ordering::Relaxed);
        let (minute, tries) = (value >> 16 & MINUTE_MASK, value & MINUTE_MASK);
        let age = self.minute().wrapping_sub(minute) & MINUTE_MASK;
        if tries == 0 || value & HASH_MASK != identity.0 & HASH_MASK || age > MINUTES {
            return false;
        }
        if tries > TRIES_MAX {
            return false;
        }
        entry.store(value + 1, Ordering::Relaxed);
        true
    }
}
