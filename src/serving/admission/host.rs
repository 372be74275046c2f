//! Host work that grows with the size of a request: decoding a body, tokenizing its texts.
//!
//! A body of several megabytes keeps a thread busy for milliseconds, as long as a hundred short requests.
//! Large requests therefore take turns, and small ones pass them. The cost per byte is learned, and requests
//! that cannot be done in time are refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Tokenizer;
use intentd_base::atomic::AtomicF64;
use intentd_base::turns::{Turn, Turns, thread_time};

/// Size in bytes of a body, or of all its texts, from which it takes turns: a tenth of a millisecond of work.
const LARGE: usize = 16 << 10;

/// The same if the tokenizer has to read a text completely, at 300 ns per byte.
const LARGE_WHOLE: usize = 2 << 10;

/// Size in bytes from which a request takes turns with this tokenizer.
pub(crate) fn large(tokenizer: &Tokenizer) -> usize {
    if tokenizer.reads_by_need() {
        LARGE
    } else {
        LARGE_WHOLE
    }
}

/// Seconds per byte before anything is learned.
const BYTE: f64 = 3e-9;

/// Bytes after which new observations make up half of the learned cost.
const LEARNT_BYTES: f64 = 4e6;

/// CPU time that a byte of a large body takes the host, from the socket to its tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByteCost {
    /// CPU seconds per byte.
    pub seconds: f64,
    /// Whether it is measured rather than guessed.
    pub is_known: bool,
}

/// When a large request would be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HostForecast {
    /// Seconds until then.
    pub(crate) seconds: f64,
    /// Whether other large requests are ahead of it.
    pub(crate) is_behind: bool,
}

/// The CPU time that large requests need on the host.
#[derive(Debug)]
pub(crate) struct HostWork {
    turns: Arc<Turns>,
    /// Nanoseconds of work that was admitted and is not done.
    ahead: AtomicU64,
    /// Seconds per byte.
    byte: AtomicF64,
    /// Bytes that it was learned from.
    learned: AtomicU64,
}

impl HostWork {
    /// A host without large requests.
    pub(crate) fn new(turns: Arc<Turns>) -> Arc<Self> {
        Arc::new(Self {
            turns,
            ahead: AtomicU64::new(0),
            byte: AtomicF64::new(BYTE),
            learned: AtomicU64::new(0),
        })
    }

    /// The turns that large requests take.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// When another request of `bytes` would be done.
    pub(crate) fn forecast(&self, bytes: usize) -> HostForecast {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let before = ahead as f64 / 1e9 / self.turns.threads() as f64;
        HostForecast {
            seconds: before + self.seconds(bytes),
            is_behind: ahead > 0,
        }
    }

    /// The CPU time per byte of a large body.
    pub(crate) fn byte_cost(&self) -> ByteCost {
        let read = self.turns.read_cost();
        let is_known = self.learned.load(Ordering::Relaxed) as f64 > 2.0 * LEARNT_BYTES;
        ByteCost {
            seconds: self.seconds(1) + read.unwrap_or_default(),
            is_known,
        }
    }

    fn seconds(&self, bytes: usize) -> f64 {
        self.byte.load() * bytes as f64
    }

    /// Waits for the turn of a request of `bytes` that should be done by `until`.
    pub(crate) async fn begin(self: &Arc<Self>, bytes: usize, until: Instant) -> HostTurn {
        let nanos = (self.seconds(bytes) * 1e9) as u64;
        self.ahead.fetch_add(nanos, Ordering::Relaxed);
        let mut work = HostTurn {
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

    /// Learns that `bytes` took `spent` of CPU time.
    fn learn(&self, bytes: usize, spent: Duration) {
        if spent.is_zero() {
            return;
        }
        let found = spent.as_secs_f64() / bytes as f64;
        let before = self.byte.load();
        let share = bytes as f64 / (bytes as f64 + LEARNT_BYTES);
        // A race between two updates loses one step of many.
        let after = before + share * (found - before);
        self.byte.store(after);
        self.learned.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The turn of a large request, waiting or running. Dropping it ends the turn.
#[derive(Debug)]
pub(crate) struct HostTurn {
    host: Arc<HostWork>,
    turn: Turn,
    bytes: usize,
    nanos: u64,
    spent: Duration,
    is_done: bool,
}

impl HostTurn {
    /// Runs a part of the work and counts its CPU time.
    pub(crate) fn spend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let result = work();
        self.spent += thread_time().saturating_sub(before);
        result
    }

    /// Ends the turn with all work done. Work that stops early says nothing about the cost of a byte.
    pub(crate) fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for HostTurn {
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
    async fn admitted_work_delays_others_until_it_is_done_or_dropped() {
        let host = HostWork::new(Turns::new(1));
        let own = BYTE * 1e6;
        let alone = HostForecast {
            seconds: own,
            is_behind: false,
        };
        assert_eq!(host.forecast(1_000_000), alone);
        let now = Instant::now();
        let first = host.begin(1_000_000, now).await;
        let second = tokio::time::timeout(Duration::ZERO, host.begin(1_000_000, now));
        assert!(second.await.is_err(), "it waits");
        let HostForecast { seconds, is_behind } = host.forecast(1_000_000);
        assert!(is_behind && (seconds - 2.0 * own).abs() < 1e-6);
        drop(first);
        assert_eq!(host.forecast(1_000_000), alone);
        assert_eq!(host.turns().free(), 1);
    }

    #[test]
    fn the_cost_of_a_byte_is_learned() {
        let host = HostWork::new(Turns::new(2));
        for _ in 0..100 {
            host.learn(1 << 20, Duration::from_millis(10));
        }
        let seconds = host.forecast(1 << 20).seconds;
        assert!((9e-3..10.1e-3).contains(&seconds), "{seconds}");
        host.learn(1 << 20, Duration::ZERO);
        assert_eq!(
            host.forecast(1 << 20).seconds,
            seconds,
            "a clock that stands still says nothing"
        );
    }
}
