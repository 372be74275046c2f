//! Counts the records in flight, over all partitions.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The count of records in flight, with an upper and a lower mark.
///
/// Pausing a partition discards what was fetched ahead. So once the upper mark is reached, nothing is read until
/// the count has fallen to the lower mark, half of the upper one.
#[derive(Debug)]
pub(super) struct InFlightRecords {
    counts: Mutex<InFlightCounts>,
    fell: Condvar,
}

#[derive(Debug)]
struct InFlightCounts {
    count: usize,
    high: usize,
}

impl InFlightCounts {
    fn is_low(&self) -> bool {
        self.count <= self.high / 2
    }
}

impl InFlightRecords {
    /// No records in flight, and an upper mark of one until another is set.
    pub(super) fn new() -> Self {
        Self {
            counts: Mutex::new(InFlightCounts { count: 0, high: 1 }),
            fell: Condvar::new(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, InFlightCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) {
        self.counts().count += 1;
    }

    pub(super) fn leave(&self) {
        let mut counts = self.counts();
        counts.count = counts.count.saturating_sub(1);
        if counts.is_low() {
            self.fell.notify_all();
        }
    }

    /// The number of records in flight.
    pub(super) fn len(&self) -> usize {
        self.counts().count
    }

    /// Sets the upper mark; returns whether it is reached.
    pub(super) fn is_full(&self, high: usize) -> bool {
        let mut counts = self.counts();
        counts.high = high.max(1);
        counts.count >= counts.high
    }

    /// Waits at most `timeout` for the count to fall to the lower mark; returns whether it has.
    pub(super) fn wait_until_low(&self, timeout: Duration) -> bool {
        let counts = self.counts();
        let waited = self
            .fell
            .wait_timeout_while(counts, timeout, |counts| !counts.is_low());
        let (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.is_low()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn reading_resumes_at_the_lower_mark() {
        let records = Arc::new(InFlightRecords::new());
        for _ in 0..4 {
            assert!(!records.is_full(4));
            records.enter();
        }
        assert!(records.is_full(4) && !records.wait_until_low(Duration::ZERO));
        records.leave();
        assert!(
            !records.wait_until_low(Duration::ZERO),
            "three are above the lower mark"
        );
        let other = Arc::clone(&records);
        let leaving = std::thread::spawn(move || other.leave());
        assert!(records.wait_until_low(Duration::from_secs(60)));
        leaving.join().unwrap();
    }
}
