//! Turns at work that keeps a thread busy: so many at once, the most urgent first.

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

/// Who is at work, and who waits for that.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    threads: usize,
    /// Bytes of large bodies that were read, and seconds that it took a thread.
    read: Mutex<(f64, f64)>,
}

/// Bytes of reading from which on its cost is known, and after which what came before counts half.
const READ_KNOWN: f64 = 1e6;
const READ_HALF: f64 = 256e6;

#[derive(Debug)]
struct Queue {
    free: usize,
    waiting: BinaryHeap<Waiting>,
    count: u64,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    number: u64,
    start: oneshot::Sender<()>,
}

impl Waiting {
    /// The earliest end first, and first come, first served among equals. Everybody has an end, so nobody is
    /// passed for ever.
    fn rank(&self) -> impl Ord + use<> {
        Reverse((self.until, self.number))
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

impl Turns {
    /// On one thread less than there are cores, so that one is left for what is short.
    pub(crate) fn beside_one_core() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new((cores - 1).max(1))
    }

    /// On so many threads.
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        let queue = Queue {
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

    /// How many are at work at most.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// `bytes` of a large body were read or put together, and kept a thread for `took`.
    pub(crate) fn read(&self, bytes: usize, took: Duration) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, seconds) = *read;
        *read = (all + bytes as f64, seconds + took.as_secs_f64());
        if all > READ_HALF {
            *read = (read.0 / 2.0, read.1 / 2.0);
        }
    }

    /// CPU seconds that a byte takes to be read, once that is known.
    pub(crate) fn read_cost(&self) -> Option<f64> {
        let (bytes, seconds) = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        (bytes >= READ_KNOWN).then(|| seconds / bytes)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a turn at work that should be done `until` then.
    pub(crate) fn ask(self: &Arc<Self>, until: Instant) -> Turn {
        let mut queue = self.queue();
        let start = if let Some(free) = queue.free.checked_sub(1) {
            queue.free = free;
            None
        } else {
            let (start, started) = oneshot::channel();
            queue.count += 1;
            let number = queue.count;
            queue.waiting.push(Waiting {
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

    /// A turn is over: the next one begins.
    fn pass_on(&self) {
        let mut queue = self.queue();
        while let Some(next) = queue.waiting.pop() {
            // Those that have left do not take it.
            if next.start.send(()).is_ok() {
                return;
            }
        }
        queue.free += 1;
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.queue().free
    }
}

/// A turn that has begun, or is waited for; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    /// Present while it is waited for.
    start: Option<oneshot::Receiver<()>>,
}

impl Turn {
    /// Ready once it has begun.
    pub(crate) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(start) = &mut self.start {
            // An error would mean that the turns are gone, and this one holds them.
            let _ = ready!(Pin::new(start).poll(cx));
            self.start = None;
        }
        Poll::Ready(())
    }

    /// Waits until it has begun.
    pub(crate) async fn begun(&mut self) {
        poll_fn(|cx| self.poll_begun(cx)).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match &mut self.start {
            None => self.turns.pass_on(),
            // Closed first, so that no turn can come after the look.
            Some(start) => {
                start.close();
                if start.try_recv().is_ok() {
                    self.turns.pass_on();
                }
            }
        }
    }
}

/// CPU time of this thread: what it waited for others is none of the work's.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_go_by_urgency_and_pass_whoever_has_left() {
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
        assert_eq!(turns.read_cost(), None, "so few say nothing");
        for nanos in [1, 3] {
            for _ in 0..10_000 {
                turns.read(1 << 20, Duration::from_nanos(nanos << 20));
            }
            let cost = turns.read_cost().unwrap() * 1e9;
            assert!((cost - nanos as f64).abs() < 0.05, "{cost}");
        }
    }

    #[tokio::test]
    async fn a_turn_that_comes_to_one_who_leaves_is_passed_on() {
        let turns = Turns::new(1);
        let now = Instant::now();
        let (first, second) = (turns.ask(now), turns.ask(now));
        // It has its turn, and has not been told.
        drop(first);
        drop(second);
        assert_eq!(turns.free(), 1);
    }
}
