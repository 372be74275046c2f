//! What is known of the speed of one model's engine, and what the engine is busy with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::curve::{Line, ServiceCurve};
use super::effort::Effort;
use super::prior::Prior;

/// A batch takes at most this part of the objective, as far as the engine can: one may run when a
/// request comes, and the next one is the request's own.
pub(crate) const BATCH_SHARE: f64 = 0.25;

/// The engine of one model, by the clock.
#[derive(Debug)]
pub(crate) struct EngineTiming {
    /// How long a batch takes here and now.
    pub(crate) curve: ServiceCurve,
    /// What a batch costs the engine.
    pub(crate) effort: Effort,
    pub(crate) busy: Busy,
    /// Seconds within which requests should be answered, if there is such an objective.
    objective: Option<f64>,
    /// Tokens in a batch, as configured and as the engine can take.
    batch_tokens_max: AtomicU64,
}

impl EngineTiming {
    /// Of an engine that has not computed anything yet.
    pub(crate) fn new(objective: Option<Duration>, batch_tokens_max: usize) -> Self {
        Self {
            curve: ServiceCurve::new(),
            effort: Effort::new(),
            busy: Busy::new(),
            objective: objective.map(|objective| objective.as_secs_f64()),
            batch_tokens_max: AtomicU64::new(batch_tokens_max as u64),
        }
    }

    /// Starts both curves from a profile.
    pub(super) fn begin(&self, prior: &Prior) {
        let batches = || prior.batches.iter();
        let took = batches().map(|batch| (batch.total() as f64, batch.took));
        self.curve.begin(took);
        let spent = batches().map(|batch| (batch.total() as f64, batch.spent));
        self.effort.curve.begin(spent);
    }

    /// Seconds within which requests should be answered, if there is such an objective.
    pub(crate) fn objective(&self) -> Option<f64> {
        self.objective
    }

    /// Tokens that the next batch may have: what fits into a quarter of the objective.
    pub(crate) fn batch_tokens(&self) -> usize {
        let max = self.batch_tokens_max.load(Ordering::Relaxed) as f64;
        tokens_a_batch(self.curve.line(), self.objective, max) as usize
    }

    /// Limits batches to `tokens`, which is what the engine can take.
    pub(crate) fn limit_batch(&self, tokens: usize) {
        self.batch_tokens_max
            .fetch_min(tokens as u64, Ordering::Relaxed);
    }

    /// Seconds for `tokens` in batches as large as possible.
    pub(crate) fn seconds(&self, tokens: f64) -> f64 {
        let batches = (tokens / self.batch_tokens() as f64).ceil();
        self.curve.line().seconds(batches, tokens)
    }

    /// Requests of `tokens` a second that the engine can answer in batches as large as possible.
    pub(crate) fn capacity(&self, tokens: f64) -> f64 {
        let budget = self.batch_tokens() as f64;
        budget / self.seconds(budget).max(1e-9) / tokens
    }
}

/// Tokens of the largest batch, of `max` tokens at most, for an objective in seconds.
pub(crate) fn tokens_a_batch(line: Line, objective: Option<f64>, max: f64) -> f64 {
    let Some(objective) = objective else {
        return max;
    };
    line.tokens_within(BATCH_SHARE * objective).clamp(1.0, max)
}

/// What the engine is busy with.
#[derive(Debug)]
pub(crate) struct Busy {
    origin: Instant,
    /// Microseconds from `origin` to when the batches under way should be done, plus one; 0 when
    /// there are none.
    until: AtomicU64,
}

impl Busy {
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

    /// A batch that should take `seconds` runs after those under way.
    pub(crate) fn add(&self, now: Instant, seconds: f64) {
        let start = self.until.load(Ordering::Relaxed).max(self.micros(now));
        let took = (seconds * 1e6) as u64;
        self.until
            .store(start.saturating_add(took), Ordering::Relaxed);
    }

    /// What runs now should take `seconds`: what earlier guesses were wrong by is forgotten.
    pub(crate) fn restart(&self, now: Instant, seconds: f64) {
        self.until.store(0, Ordering::Relaxed);
        self.add(now, seconds);
    }

    /// Nothing is under way.
    pub(crate) fn clear(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// Seconds that what runs will still take. Of a batch that is late nothing is known but that it
    /// is: it is expected to stay late for as long again.
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
    async fn what_runs_is_waited_for_and_what_is_late_is_expected_to_stay_late() {
        let busy = Busy::new();
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
