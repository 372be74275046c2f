//! The timing of one model's engine: its service curves, and until when it is busy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::curve::{ServiceCurve, ServiceLine};
use super::effort::Effort;
use super::prior::Prior;
use super::sample::BatchSample;

/// A batch takes at most this share of the objective, if the engine is fast enough. One batch may be running
/// when a request arrives, and the next one is the request's own.
pub(crate) const BATCH_SHARE: f64 = 0.25;

/// The timing of one model's engine.
#[derive(Debug)]
pub(crate) struct EngineTiming {
    /// The time of a batch under the current load.
    pub(crate) curve: ServiceCurve,
    /// The engine's own cost of a batch.
    pub(crate) effort: Effort,
    pub(crate) busy: BusyUntil,
    /// The latency objective in seconds, if any.
    objective: Option<f64>,
    /// Maximum tokens in a batch, by configuration and by the engine.
    batch_tokens_max: AtomicU64,
}

impl EngineTiming {
    /// The timing of an engine that has not computed anything yet.
    pub(crate) fn new(objective: Option<Duration>, batch_tokens_max: usize) -> Self {
        Self {
            curve: ServiceCurve::new(),
            effort: Effort::new(),
            busy: BusyUntil::new(),
            objective: objective.map(|objective| objective.as_secs_f64()),
            batch_tokens_max: AtomicU64::new(batch_tokens_max as u64),
        }
    }

    /// Initializes both curves from a profile.
    pub(super) fn begin(&self, prior: &Prior) {
        let batches = || prior.batches.iter();
        let took = batches().map(|batch| BatchSample {
            tokens: batch.total() as f64,
            seconds: batch.took,
        });
        self.curve.begin(took);
        let spent = batches().map(|batch| BatchSample {
            tokens: batch.total() as f64,
            seconds: batch.spent,
        });
        self.effort.curve.begin(spent);
    }

    /// The latency objective in seconds, if any.
    pub(crate) fn objective(&self) -> Option<f64> {
        self.objective
    }

    /// Maximum tokens of the next batch: what fits into a quarter of the objective.
    pub(crate) fn batch_tokens(&self) -> usize {
        let max = self.batch_tokens_max.load(Ordering::Relaxed) as f64;
        tokens_a_batch(self.curve.line(), self.objective, max) as usize
    }

    /// Limits batches to `tokens`, the engine's maximum.
    pub(crate) fn limit_batch(&self, tokens: usize) {
        self.batch_tokens_max
            .fetch_min(tokens as u64, Ordering::Relaxed);
    }

    /// Seconds for `tokens` in the largest possible batches.
    pub(crate) fn seconds(&self, tokens: f64) -> f64 {
        let batches = (tokens / self.batch_tokens() as f64).ceil();
        self.curve.line().seconds(batches, tokens)
    }

    /// Requests of `tokens` each that the engine can answer per second in the largest possible batches.
    pub(crate) fn capacity(&self, tokens: f64) -> f64 {
        let budget = self.batch_tokens() as f64;
        budget / self.seconds(budget).max(1e-9) / tokens
    }
}

/// Tokens of the largest batch for an objective in seconds; at most `max`.
pub(crate) fn tokens_a_batch(line: ServiceLine, objective: Option<f64>, max: f64) -> f64 {
    let Some(objective) = objective else {
        return max;
    };
    line.tokens_within(BATCH_SHARE * objective).clamp(1.0, max)
}

/// When the engine will have finished the batches in flight.
#[derive(Debug)]
pub(crate) struct BusyUntil {
    origin: Instant,
    /// Microseconds from `origin` until the batches in flight should be done, plus one; 0 if there are none.
    until: AtomicU64,
}

impl BusyUntil {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.origin).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1
    }

    /// Adds a batch of `seconds` after those in flight.
    pub(crate) fn add(&self, now: Instant, seconds: f64) {
        let start = self.until.load(Ordering::Relaxed).max(self.micros(now));
        let took = (seconds * 1e6) as u64;
        self.until
            .store(start.saturating_add(took), Ordering::Relaxed);
    }

    /// Restarts with `seconds` for the batches in flight. Errors of earlier estimates are forgotten.
    pub(crate) fn restart(&self, now: Instant, seconds: f64) {
        self.until.store(0, Ordering::Relaxed);
        self.add(now, seconds);
    }

    /// Records that no batch is in flight.
    pub(crate) fn clear(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// Seconds until the batches in flight are done. A late batch is expected to take as long again as it is
    /// late.
    pub(crate) fn left(&self, now: Instant) -> f64 {
        match self.until.load(Ordering::Relaxed) {
            0 => 0.0,
            until => until.abs_diff(self.micros(now)) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_a_quarter_of_the_objective() {
        let timing = |objective| {
            let timing = EngineTiming::new(objective, 4096);
            for tokens in [10_u32, 100, 1000] {
                let took = 0.001 + 0.0001 * f64::from(tokens);
                let took = Duration::from_secs_f64(took);
                timing.curve.observe(tokens as usize, took);
            }
            timing
        };
        let limited = timing(Some(Duration::from_millis(100)));
        let tokens = limited.batch_tokens();
        assert!((239..=241).contains(&tokens), "{tokens}");
        limited.limit_batch(100);
        assert_eq!(limited.batch_tokens(), 100);
        assert_eq!(timing(None).batch_tokens(), 4096);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_batch_is_expected_to_stay_late() {
        let busy = BusyUntil::new();
        let start = Instant::now();
        let left = |ms: u64| (busy.left(start + Duration::from_millis(ms)) * 1e3).round();
        assert_eq!(left(0), 0.0);
        busy.add(start, 0.010);
        assert_eq!((left(0), left(4), left(10)), (10.0, 6.0, 0.0));
        assert_eq!((left(15), left(40)), (5.0, 30.0));
        busy.add(start, 0.010);
        assert_eq!(left(4), 16.0);
        busy.restart(start, 0.010);
        assert_eq!(left(4), 6.0);
        busy.clear();
        assert_eq!(left(4), 0.0);
    }
}
