//! Throttles log lines whose number clients and other systems control: failed requests, addresses that do not
//! answer, records that are refused. The first event of a kind is logged at once. After that there is at most
//! one line per period, with the number of events since the last line. So neither the reader nor the disk is
//! flooded.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time from one line of a kind to the next.
const PERIOD: Duration = Duration::from_secs(10);

/// The origin of times.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The throttle of one kind of line.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// When the next line is allowed, in microseconds from [`START`].
    next: AtomicU64,
    /// Events since the last line.
    times: AtomicU64,
}

impl LogThrottle {
    /// A throttle that lets the first event through.
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            times: AtomicU64::new(0),
        }
    }

    /// Counts an event. Returns the events since the last line if this one is to be logged.
    pub fn event(&self) -> Option<u64> {
        self.events(1)
    }

    /// Counts `times` events, as [`event`](Self::event) does one.
    pub fn events(&self, times: u64) -> Option<u64> {
        self.at(times, START.elapsed())
    }

    fn at(&self, times: u64, now: Duration) -> Option<u64> {
        self.times.fetch_add(times, Ordering::Relaxed);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        if micros(now) < next {
            return None;
        }
        // Of several threads at the same moment, one logs for all.
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
    fn the_first_is_logged_at_once_and_the_others_are_counted() {
        let throttle = LogThrottle::new();
        let at = |millis| Duration::from_millis(millis);
        assert_eq!(throttle.at(1, at(0)), Some(1));
        for millis in 1..9999 {
            assert_eq!(throttle.at(1, at(millis)), None);
        }
        assert_eq!(throttle.at(3, at(10_001)), Some(9998 + 3));
        assert_eq!(throttle.at(1, at(10_002)), None);
        assert_eq!(throttle.at(1, at(60_000)), Some(2));
    }

    #[test]
    fn of_many_at_once_one_is_logged() {
        let throttle = LogThrottle::new();
        let logged = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter_map(|_| throttle.event()).count()))
                .collect();
            all.into_iter()
                .map(|one| one.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(logged, 1);
    }
}
