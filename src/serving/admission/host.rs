//! What requests ask of the host that grows with their size: decoding a body, cutting its texts.
//!
//! A body of some megabytes keeps a thread busy for milliseconds, as long as a hundred short requests. So
//! large ones take turns, and small ones pass beside them. What it takes is learnt a byte, and what cannot
//! be done in time is refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Tokenizer;
use crate::turns::{Turn, Turns, thread_time};

/// Bytes of a body, or of its texts together, from which on it takes turns: a tenth of a millisecond.
const LARGE: usize = 16 << 10;

/// The same where a tokenizer has to see all of a text: three hundred nanoseconds a byte.
const LARGE_WHOLE: usize = 2 << 10;

/// Bytes from which on a request takes turns, where texts are read by need or as a whole.
pub(crate) fn large(tokenizer: &Tokenizer) -> usize {
    if tokenizer.reads_by_need() {
        LARGE
    } else {
        LARGE_WHOLE
    }
}

/// Seconds a byte, before any was seen.
const BYTE: f64 = 3e-9;

/// Bytes after which half of what is known of the cost of a byte is new.
const LEARNT_BYTES: f64 = 4e6;

/// The account of large requests.
#[derive(Debug)]
pub(crate) struct Host {
    turns: Arc<Turns>,
    /// Nanoseconds of work that has been let in and is not done.
    ahead: AtomicU64,
    /// Seconds a byte, the bits of an `f64`.
    byte: AtomicU64,
    /// Bytes that it was learnt from.
    learnt: AtomicU64,
}

impl Host {
    /// With nobody at work.
    pub(crate) fn new(turns: Arc<Turns>) -> Arc<Self> {
        Arc::new(Self {
            turns,
            ahead: AtomicU64::new(0),
            byte: AtomicU64::new(BYTE.to_bits()),
            learnt: AtomicU64::new(0),
        })
    }

    /// The turns that large requests take.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Seconds that `bytes` more would take until they are done, and whether anything is before them.
    pub(crate) fn forecast(&self, bytes: usize) -> (f64, bool) {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let before = ahead as f64 / 1e9 / self.turns.threads() as f64;
        (before + self.seconds(bytes), ahead > 0)
    }

    /// CPU seconds that a byte of a large body takes from the socket to its tokens, and whether that is more
    /// than a guess.
    pub(crate) fn byte_cost(&self) -> (f64, bool) {
        let read = self.turns.read_cost();
        let is_known = self.learnt.load(Ordering::Relaxed) as f64 > 2.0 * LEARNT_BYTES;
        (self.seconds(1) + read.unwrap_or_default(), is_known)
    }

    fn seconds(&self, bytes: usize) -> f64 {
        f64::from_bits(self.byte.load(Ordering::Relaxed)) * bytes as f64
    }

    /// Waits for the turn of a request of `bytes` that should be done `until` then.
    pub(crate) async fn begin(self: &Arc<Self>, bytes: usize, until: Instant) -> Work {
        let nanos = (self.seconds(bytes) * 1e9) as u64;
        self.ahead.fetch_add(nanos, Ordering::Relaxed);
        let mut work = Work {
            turn: self.turns.ask(until),
            host: Arc::clone(self),
            bytes,
            nanos,
            spent: Duration::ZERO,
            is_done: false,
        };
        work.turn.begun().await;
        work
    }

    /// `bytes` took `spent` of a thread.
    fn learn(&self, bytes: usize, spent: Duration) {
        if spent.is_zero() {
            return;
        }
        let found = spent.as_secs_f64() / bytes as f64;
        let before = f64::from_bits(self.byte.load(Ordering::Relaxed));
        let share = bytes as f64 / (bytes as f64 + LEARNT_BYTES);
        // Two that learn at once lose one step of many.
        let after = before + share * (found - before);
        self.byte.store(after.to_bits(), Ordering::Relaxed);
        self.learnt.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A large request at work, or one that waits for that; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    host: Arc<Host>,
    turn: Turn,
    bytes: usize,
    nanos: u64,
    spent: Duration,
    is_done: bool,
}

impl Work {
    /// Does a part of it, and counts the time that the thread took.
    pub(crate) fn spend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let result = work();
        self.spent += thread_time().saturating_sub(before);
        result
    }

    /// All of it is done; what breaks off before says nothing of what a byte costs.
    pub(crate) fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.host.ahead.fetch_sub(self.nanos, Ordering::Relaxed);
        if self.is_done {
            self.host.learn(self.bytes, self.spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_let_in_is_ahead_of_others_until_it_is_done_or_has_left() {
        let host = Host::new(Turns::new(1));
        let own = BYTE * 1e6;
        assert_eq!(host.forecast(1_000_000), (own, false));
        let now = Instant::now();
        let first = host.begin(1_000_000, now).await;
        let second = tokio::time::timeout(Duration::ZERO, host.begin(1_000_000, now));
        assert!(second.await.is_err(), "it waits");
        let (seconds, is_behind) = host.forecast(1_000_000);
        assert!(is_behind && (seconds - 2.0 * own).abs() < 1e-6);
        drop(first);
        assert_eq!(host.forecast(1_000_000), (own, false));
        assert_eq!(host.turns().free(), 1);
    }

    #[test]
    fn the_cost_of_a_byte_follows_what_is_seen() {
        let host = Host::new(Turns::new(2));
        for _ in 0..100 {
            host.learn(1 << 20, Duration::from_millis(10));
        }
        let (seconds, _) = host.forecast(1 << 20);
        assert!((9e-3..10.1e-3).contains(&seconds), "{seconds}");
        host.learn(1 << 20, Duration::ZERO);
        assert_eq!(
            host.forecast(1 << 20).0,
            seconds,
            "a clock that stands says nothing"
        );
    }
}
