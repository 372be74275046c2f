//! What requests ask of the host that grows with their size: decoding a body, cutting its texts.
//!
//! A body of some megabytes keeps a thread busy for milliseconds, as long as a hundred short requests. So
//! large ones take turns, on one thread less than there are cores, the most urgent first; small ones pass
//! beside them. What it takes is learnt a byte, and what cannot be done in time is refused at once.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering as Memory};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::model::Tokenizer;

/// Bytes of a body, or of its texts together, from which on it takes turns: a tenth of a millisecond.
pub(crate) const LARGE: usize = 16 << 10;

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
    turns: Mutex<Turns>,
    /// How many are at work at most.
    threads: usize,
    /// Nanoseconds of work that has been let in and is not done.
    ahead: AtomicU64,
    /// Seconds a byte, the bits of an `f64`.
    byte: AtomicU64,
}

#[derive(Debug)]
struct Turns {
    free: usize,
    waiting: BinaryHeap<Waiting>,
    count: u64,
}

#[derive(Debug)]
struct Waiting {
    until: Option<Instant>,
    number: u64,
    start: oneshot::Sender<()>,
}

impl Waiting {
    /// The earliest end first, those without one last, and first come, first served among equals.
    fn rank(&self) -> impl Ord + use<> {
        let end = self.until.map(Reverse);
        (end, Reverse(self.number))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Host {
    /// Of a process that may use so many cores as the system says.
    pub(crate) fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::with_threads((cores - 1).max(1))
    }

    fn with_threads(threads: usize) -> Arc<Self> {
        let turns = Turns {
            free: threads,
            waiting: BinaryHeap::new(),
            count: 0,
        };
        Arc::new(Self {
            turns: Mutex::new(turns),
            threads,
            ahead: AtomicU64::new(0),
            byte: AtomicU64::new(BYTE.to_bits()),
        })
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds that `bytes` more would take until they are done, and whether anything is before them.
    pub(crate) fn forecast(&self, bytes: usize) -> (f64, bool) {
        let ahead = self.ahead.load(Memory::Relaxed);
        let own = self.seconds(bytes);
        let ahead_of_it = ahead as f64 / 1e9 / self.threads as f64;
        (ahead_of_it + own, ahead > 0)
    }

    fn seconds(&self, bytes: usize) -> f64 {
        f64::from_bits(self.byte.load(Memory::Relaxed)) * bytes as f64
    }

    /// Waits for the turn of a request of `bytes` that should be done `until` then.
    pub(crate) async fn turn(self: &Arc<Self>, bytes: usize, until: Option<Instant>) -> Turn {
        let nanos = (self.seconds(bytes) * 1e9) as u64;
        self.ahead.fetch_add(nanos, Memory::Relaxed);
        let mut turn = Turn {
            host: Arc::clone(self),
            bytes,
            nanos,
            spent: Duration::ZERO,
            start: None,
        };
        let start = {
            let mut turns = self.turns();
            match turns.free.checked_sub(1) {
                Some(free) => {
                    turns.free = free;
                    return turn;
                }
                None => {
                    let (start, started) = oneshot::channel();
                    turns.count += 1;
                    let number = turns.count;
                    turns.waiting.push(Waiting {
                        until,
                        number,
                        start,
                    });
                    started
                }
            }
        };
        // Whoever leaves meanwhile has the turn in its channel, or has not had it yet: the end of `turn`
        // tells.
        let start = turn.start.insert(start);
        // An error would mean that the turns are gone, and this one holds them.
        let _ = start.await;
        turn.start = None;
        turn
    }

    /// A turn is over: the next one begins.
    fn pass_on(&self) {
        let mut turns = self.turns();
        while let Some(next) = turns.waiting.pop() {
            // Those that have left do not take it.
            if next.start.send(()).is_ok() {
                return;
            }
        }
        turns.free += 1;
    }

    /// `bytes` took `spent` of a thread.
    fn learn(&self, bytes: usize, spent: Duration) {
        if spent.is_zero() {
            return;
        }
        let found = spent.as_secs_f64() / bytes as f64;
        let before = f64::from_bits(self.byte.load(Memory::Relaxed));
        let share = bytes as f64 / (bytes as f64 + LEARNT_BYTES);
        // Two that learn at once lose one step of many.
        let after = before + share * (found - before);
        self.byte.store(after.to_bits(), Memory::Relaxed);
    }
}

/// A large request at work, or one that waits for that; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    host: Arc<Host>,
    bytes: usize,
    nanos: u64,
    spent: Duration,
    /// Present while it waits.
    start: Option<oneshot::Receiver<()>>,
}

impl Turn {
    /// Does a part of its work, and counts the time that the thread took.
    pub(crate) fn spend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let result = work();
        self.spent += thread_time().saturating_sub(before);
        result
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.host.ahead.fetch_sub(self.nanos, Memory::Relaxed);
        match &mut self.start {
            None => {
                self.host.learn(self.bytes, self.spent);
                self.host.pass_on();
            }
            // Closed first, so that no turn can come after the look.
            Some(start) => {
                start.close();
                if start.try_recv().is_ok() {
                    self.host.pass_on();
                }
            }
        }
    }
}

/// CPU time of this thread: what it waited for others is none of the request's work.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_go_by_urgency_and_pass_whoever_has_left() {
        let host = Host::with_threads(1);
        let first = host.turn(LARGE, None).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let now = Instant::now();
        let mut tasks = Vec::new();
        for (name, until) in [
            ("whenever", None),
            ("late", Some(9)),
            ("gone", Some(1)),
            ("soon", Some(2)),
            ("late too", Some(9)),
        ] {
            let (host, order) = (Arc::clone(&host), Arc::clone(&order));
            let until = until.map(|seconds| now + Duration::from_secs(seconds));
            tasks.push(tokio::spawn(async move {
                let turn = host.turn(LARGE, until).await;
                order.lock().unwrap().push(name);
                tokio::task::yield_now().await;
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }
        let (before, is_behind) = host.forecast(LARGE);
        assert!(is_behind && before > 6.0 * BYTE * LARGE as f64);
        tasks.remove(2).abort();
        tokio::task::yield_now().await;
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(
            *order.lock().unwrap(),
            ["soon", "late", "late too", "whenever"]
        );
        assert_eq!(host.ahead.load(Memory::Relaxed), 0);
        assert_eq!(host.turns().free, 1);
    }

    #[tokio::test]
    async fn a_turn_that_comes_to_one_who_leaves_is_passed_on() {
        let host = Host::with_threads(1);
        let first = host.turn(LARGE, None).await;
        let second = tokio::spawn({
            let host = Arc::clone(&host);
            async move { drop(host.turn(LARGE, None).await) }
        });
        tokio::task::yield_now().await;
        // It has its turn, and has not been told.
        drop(first);
        second.abort();
        let _ = second.await;
        assert_eq!(host.turns().free, 1);
    }

    #[test]
    fn the_cost_of_a_byte_follows_what_is_seen() {
        let host = Host::with_threads(2);
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
