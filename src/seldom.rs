//! Lines of the log whose number is up to others: how many requests fail, addresses do not answer,
//! records are not taken. Each kind is said at once when it happens, and then at most once in a while, with
//! how often it happened: a log is read by people, and its disk is not larger than any other.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time from one line of a kind to the next.
const PERIOD: Duration = Duration::from_secs(10);

/// What times are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One kind of line.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// When the next line may come, in microseconds.
    next: AtomicU64,
    /// How often it happened since the last line.
    times: AtomicU64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            times: AtomicU64::new(0),
        }
    }

    /// It has happened. Whether to say it now, and if so how often it has happened since it was said last.
    pub(crate) fn now(&self) -> Option<u64> {
        self.many(1)
    }

    /// It has happened so often at once.
    pub(crate) fn many(&self, times: u64) -> Option<u64> {
        self.at(times, START.elapsed())
    }

    fn at(&self, times: u64, now: Duration) -> Option<u64> {
        self.times.fetch_add(times, Ordering::Relaxed);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        if micros(now) < next {
            return None;
        }
        // Of several at the same moment one says it for all.
        let order = Ordering::Relaxed;
        let after = micros(now.saturating_add(PERIOD));
        let is_ours = self.next.compare_exchange(next, after, order, order);
        let times = self.times.swap(0, is_ours.ok().map(|_| order)?);
        (times > 0).then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_others_are_counted() {
        let seldom = Seldom::new();
        let at = |millis| Duration::from_millis(millis);
        assert_eq!(seldom.at(1, at(0)), Some(1));
        for millis in 1..9999 {
            assert_eq!(seldom.at(1, at(millis)), None);
        }
        assert_eq!(seldom.at(3, at(10_001)), Some(9998 + 3));
        assert_eq!(seldom.at(1, at(10_002)), None);
        assert_eq!(seldom.at(1, at(60_000)), Some(2));
    }

    #[test]
    fn of_many_at_once_one_says_it() {
        let seldom = Seldom::new();
        let said = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter_map(|_| seldom.now()).count()))
                .collect();
            all.into_iter()
                .map(|one| one.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(said, 1);
    }
}
