//! Turns for work that keeps a thread busy: a bounded number at once, the most urgent first.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// The bound on such work, and the queue of those that wait for a turn.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<TurnQueue>,
    threads: usize,
    read: Mutex<ReadCost>,
}

/// The cost of reading large bodies.
#[derive(Debug, Default)]
struct ReadCost {
    bytes: f64,
    /// CPU seconds that these bytes took.
    seconds: f64,
}

/// Bytes after which the cost of reading counts as known, and bytes after which earlier ones count half.
const READ_KNOWN: f64 = 1e6;
const READ_HALF: f64 = 256e6;

impl ReadCost {
    fn add(&mut self, bytes: usize, took: Duration) {
        let halves = self.bytes > READ_HALF;
        self.bytes += bytes as f64;
        self.seconds += took.as_secs_f64();
        if halves {
            self.bytes /= 2.0;
            self.seconds /= 2.0;
        }
    }

    fn per_byte(&self) -> Option<f64> {
        (self.bytes >= READ_KNOWN).then(|| self.seconds / self.bytes)
    }
}

#[derive(Debug)]
struct TurnQueue {
    free: usize,
    waiting: BinaryHeap<WaitingTurn>,
    count: u64,
}

#[derive(Debug)]
struct WaitingTurn {
    until: Instant,
    number: u64,
    start: oneshot::Sender<()>,
}

impl WaitingTurn {
    /// The earliest deadline first, then first come, first served. Every turn has a deadline, so none starves.
    fn rank(&self) -> impl Ord + use<> {
        Reverse((self.until, self.number))
    }
}

impl PartialEq for WaitingTurn {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for WaitingTurn {}

impl PartialOrd for WaitingTurn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WaitingTurn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Turns {
    /// Turns on all cores but one, which is left for short work.
    pub fn beside_one_core() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new((cores - 1).max(1))
    }

    /// Turns on `threads` threads.
    pub fn new(threads: usize) -> Arc<Self> {
        let queue = TurnQueue {
            free: threads,
            waiting: BinaryHeap::new(),
            count: 0,
        };
        Arc::new(Self {
            queue: Mutex::new(queue),
            threads,
            read: Mutex::default(),
        })
    }

    /// The number of turns at once.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Records that `bytes` of a large body were read or assembled in `took` of a thread's CPU time.
    pub fn read(&self, bytes: usize, took: Duration) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.add(bytes, took);
    }

    /// The CPU seconds to read a byte, once that is known.
    pub fn read_cost(&self) -> Option<f64> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.per_byte()
    }

    fn queue(&self) -> MutexGuard<'_, TurnQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a turn for work with the deadline `until`.
    pub fn ask(self: &Arc<Self>, until: Instant) -> Turn {
        let mut queue = self.queue();
        let start = if let Some(free) = queue.free.checked_sub(1) {
            queue.free = free;
            None
        } else {
            let (start, started) = oneshot::channel();
            queue.count += 1;
            let number = queue.count;
            queue.waiting.push(WaitingTurn {
                until,
                number,
                start,
            });
            Some(started)
        };
        drop(queue);
        Turn {
            turns: Arc::clone(self),
            start,
        }
    }

    /// Ends a turn; the next one begins.
    fn pass_on(&self) {
        let mut queue = self.queue();
        while let Some(next) = queue.waiting.pop() {
            // A receiver that was dropped does not take the turn.
            if next.start.send(()).is_ok() {
                return;
            }
        }
        queue.free += 1;
    }

    /// The turns that nobody has.
    pub fn free(&self) -> usize {
        self.queue().free
    }
}

/// A turn that has begun or is awaited. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    /// Present while the turn is awaited.
    start: Option<oneshot::Receiver<()>>,
}

impl Turn {
    /// Ready once the turn has begun.
    pub fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(start) = &mut self.start {
            // Never an error: this turn keeps the senders alive.
            let _ = ready!(Pin::new(start).poll(cx));
            self.start = None;
        }
        Poll::Ready(())
    }

    /// Waits until the turn has begun.
    pub async fn begun(&mut self) {
        poll_fn(|cx| self.poll_begun(cx)).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match &mut self.start {
            None => self.turns.pass_on(),
            // Closed first, so that no turn can arrive after the check.
            Some(start) => {
                start.close();
                if start.try_recv().is_ok() {
                    self.turns.pass_on();
                }
            }
        }
    }
}

/// The CPU time of this thread. Unlike wall time, it excludes waits for other threads.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_go_by_deadline_and_skip_dropped_ones() {
        let turns = Turns::new(1);
        let now = Instant::now();
        let first = turns.ask(now);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, until) in [
            ("last", 99),
            ("late", 9),
            ("gone", 1),
            ("soon", 2),
            ("late too", 9),
        ] {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            let until = now + Duration::from_secs(until);
            tasks.push(tokio::spawn(async move {
                let mut turn = turns.ask(until);
                turn.begun().await;
                order.lock().unwrap().push(name);
                tokio::task::yield_now().await;
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }
        tasks.remove(2).abort();
        tokio::task::yield_now().await;
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["soon", "late", "late too", "last"]);
        assert_eq!(turns.free(), 1);
    }

    #[test]
    fn the_cost_of_reading_follows_what_is_seen() {
        let turns = Turns::new(1);
        turns.read(1000, Duration::from_secs(1));
        assert_eq!(turns.read_cost(), None, "too few bytes to know");
        for nanos in [1, 3] {
            for _ in 0..10_000 {
                turns.read(1 << 20, Duration::from_nanos(nanos << 20));
            }
            let cost = turns.read_cost().unwrap() * 1e9;
            assert!((cost - nanos as f64).abs() < 0.05, "{cost}");
        }
    }

    #[tokio::test]
    async fn a_turn_that_arrives_at_a_dropped_waiter_is_passed_on() {
        let turns = Turns::new(1);
        let now = Instant::now();
        let (first, second) = (turns.ask(now), turns.ask(now));
        // The second has its turn, but has not polled it.
        drop(first);
        drop(second);
        assert_eq!(turns.free(), 1);
    }
}
