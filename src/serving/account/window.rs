//! Durations of the last minute, with mean and percentile. Any thread may record.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per octave: values are known to 5 %.
const STEPS_AN_OCTAVE: f64 = 8.0;

/// The shortest duration that is distinguished, in seconds, and the number of buckets: 27 octaves, up to two
/// minutes.
const SHORTEST: f64 = 1e-6;
const BUCKETS: usize = 27 * 8;

/// A histogram of durations.
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU32; BUCKETS],
    /// Sum of all durations in nanoseconds.
    sum: AtomicU64,
}

impl Histogram {
    fn new() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }

    /// Takes the counts and resets them.
    fn take(&self) -> HistogramCounts {
        let take = |bucket: &AtomicU32| u64::from(bucket.swap(0, Ordering::Relaxed));
        HistogramCounts {
            buckets: self.buckets.iter().map(take).collect(),
            seconds: self.sum.swap(0, Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

/// The counts of a histogram.
#[derive(Debug, Clone)]
struct HistogramCounts {
    buckets: Vec<u64>,
    seconds: f64,
}

/// Records durations of the current interval, from any thread.
#[derive(Debug)]
pub struct Recorder(Histogram);

impl Recorder {
    /// A recorder without durations.
    pub fn new() -> Self {
        Self(Histogram::new())
    }

    /// Records a duration.
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

/// The last intervals of a recorder.
#[derive(Debug)]
pub struct LatencyWindow {
    intervals: Vec<Option<HistogramCounts>>,
    next: usize,
}

/// A summary of the durations in a window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LatencySummary {
    /// Number of durations.
    pub count: u64,
    /// Mean in seconds.
    pub mean: f64,
    /// 99th percentile in seconds.
    pub p99: f64,
}

impl LatencyWindow {
    /// A window of `intervals` intervals.
    pub fn new(intervals: usize) -> Self {
        Self {
            intervals: vec![None; intervals.max(1)],
            next: 0,
        }
    }

    /// Ends an interval: takes what was recorded since the previous one.
    pub fn rotate(&mut self, recorder: &Recorder) {
        self.intervals[self.next] = Some(recorder.0.take());
        self.next = (self.next + 1) % self.intervals.len();
    }

    /// The summary over all intervals; zeros if nothing was recorded.
    pub fn summary(&self) -> LatencySummary {
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
            return LatencySummary::default();
        }
        let beyond = count - count / 100;
        let mut below = 0;
        let bucket = buckets.iter().position(|count| {
            below += count;
            below >= beyond
        });
        // The logarithmic middle of the bucket.
        let octaves = (bucket.unwrap_or(BUCKETS - 1) as f64 + 0.5) / STEPS_AN_OCTAVE;
        LatencySummary {
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
    fn the_summary_covers_the_window() {
        let recorder = Recorder::new();
        let mut window = LatencyWindow::new(2);
        assert_eq!(window.summary(), LatencySummary::default());
        for millis in 1..=1000 {
            recorder.record(Duration::from_millis(millis));
        }
        window.rotate(&recorder);
        let LatencySummary { count, mean, p99 } = window.summary();
        assert_eq!(count, 1000);
        assert!((mean - 0.5005).abs() < 1e-9, "{mean}");
        assert!((p99 / 0.99 - 1.0).abs() < 0.06, "{p99}");
        recorder.record(Duration::from_secs(1000));
        window.rotate(&recorder);
        assert_eq!(window.summary().count, 1001);
        window.rotate(&recorder);
        assert_eq!(window.summary().count, 1, "the oldest interval is gone");
        window.rotate(&recorder);
        assert_eq!(window.summary(), LatencySummary::default());
    }

    #[test]
    fn a_duration_of_zero_counts() {
        let recorder = Recorder::new();
        recorder.record(Duration::ZERO);
        let mut window = LatencyWindow::new(1);
        window.rotate(&recorder);
        assert_eq!(window.summary().count, 1);
    }
}
