//! Durations of the last minute: their mean and their percentiles, to be recorded from any thread.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Buckets an octave: a value is known to 5 %.
const STEPS_AN_OCTAVE: f64 = 8.0;

/// The shortest duration that is told from others, in seconds; and octaves above it, to two minutes.
const SHORTEST: f64 = 1e-6;
const BUCKETS: usize = 27 * 8;

/// A histogram of durations.
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU32; BUCKETS],
    /// Nanoseconds of all.
    sum: AtomicU64,
}

impl Histogram {
    fn new() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }

    /// Moves the counts out.
    fn take(&self) -> Counts {
        let take = |bucket: &AtomicU32| u64::from(bucket.swap(0, Ordering::Relaxed));
        Counts {
            buckets: self.buckets.iter().map(take).collect(),
            seconds: self.sum.swap(0, Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

/// Durations by size.
#[derive(Debug, Clone)]
struct Counts {
    buckets: Vec<u64>,
    seconds: f64,
}

/// What is recorded now; shared.
#[derive(Debug)]
pub struct Recorder(Histogram);

impl Recorder {
    /// A recorder of nothing.
    pub fn new() -> Self {
        Self(Histogram::new())
    }

    /// Something took so long.
    pub fn record(&self, took: Duration) {
        let octaves = (took.as_secs_f64() / SHORTEST).max(1.0).log2();
        let bucket = ((octaves * STEPS_AN_OCTAVE) as usize).min(BUCKETS - 1);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

/// The last so many intervals of a recorder.
#[derive(Debug)]
pub struct Window {
    intervals: Vec<Option<Counts>>,
    next: usize,
}

/// A window's durations in short.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Their mean in seconds.
    pub mean: f64,
    /// Their 99th percentile in seconds.
    pub p99: f64,
}

impl Window {
    /// A window of so many intervals.
    pub fn new(intervals: usize) -> Self {
        Self {
            intervals: vec![None; intervals.max(1)],
            next: 0,
        }
    }

    /// Ends an interval: what was recorded since the last end is its.
    pub fn turn(&mut self, recorder: &Recorder) {
        self.intervals[self.next] = Some(recorder.0.take());
        self.next = (self.next + 1) % self.intervals.len();
    }

    /// All intervals together; zeros where nothing was recorded.
    pub fn summary(&self) -> Summary {
        let mut buckets = [0_u64; BUCKETS];
        let mut seconds = 0.0;
        for counts in self.intervals.iter().flatten() {
            seconds += counts.seconds;
            for (sum, count) in buckets.iter_mut().zip(&counts.buckets) {
                *sum += count;
            }
        }
        let count: u64 = buckets.iter().sum();
        if count == 0 {
            return Summary::default();
        }
        let beyond = count - count / 100;
        let mut below = 0;
        let bucket = buckets.iter().position(|count| {
            below += count;
            below >= beyond
        });
        // The middle of the bucket, by its logarithm.
        let octaves = (bucket.unwrap_or(BUCKETS - 1) as f64 + 0.5) / STEPS_AN_OCTAVE;
        Summary {
            count,
            mean: seconds / count as f64,
            p99: SHORTEST * octaves.exp2(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_percentile_are_those_of_the_window() {
        let recorder = Recorder::new();
        let mut window = Window::new(2);
        assert_eq!(window.summary(), Summary::default());
        for millis in 1..=1000 {
            recorder.record(Duration::from_millis(millis));
        }
        window.turn(&recorder);
        let Summary { count, mean, p99 } = window.summary();
        assert_eq!(count, 1000);
        assert!((mean - 0.5005).abs() < 1e-9, "{mean}");
        assert!((p99 / 0.99 - 1.0).abs() < 0.06, "{p99}");
        recorder.record(Duration::from_secs(1000));
        window.turn(&recorder);
        assert_eq!(window.summary().count, 1001);
        window.turn(&recorder);
        assert_eq!(window.summary().count, 1, "the oldest interval is gone");
        window.turn(&recorder);
        assert_eq!(window.summary(), Summary::default());
    }

    #[test]
    fn whatever_took_no_time_counts_as_well() {
        let recorder = Recorder::new();
        recorder.record(Duration::ZERO);
        let mut window = Window::new(1);
        window.turn(&recorder);
        assert_eq!(window.summary().count, 1);
    }
}
