//! How long a request that comes now will take, and whether that is soon enough.
//!
//! Reads the service curve, what waits and what runs; all of them atomics. A forecast is as good as
//! the curve, so what it was wrong by is learnt as well ([`Slack`]), and the promise is kept for 99.5
//! of 100 admitted requests rather than for the mean one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::curve::{Line, ServiceCurve};
use super::slots::{Class, Slots};

/// Share of requests that may take longer than forecast.
const MISSED: f64 = 0.005;

/// Part of the objective within which the answer should leave: the rest is for what is not seen from
/// here, from the client's socket to the admission and back.
pub(crate) const PROMISE: f64 = 0.9;

/// A batch takes at most this part of the objective, as far as the engine can: one may run when a
/// request comes, and the next one is the request's own.
const BATCH_SHARE: f64 = 0.25;

/// An objective that cannot be kept by an idle server is stretched to so many times what the request
/// takes alone: one batch runs, one is the request's own, one is for all that is uncertain.
const ALONE: f64 = 3.0;

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
    fn left(&self, now: Instant) -> f64 {
        match self.until.load(Ordering::Relaxed) {
            0 => 0.0,
            until => until.abs_diff(self.micros(now)) as f64 / 1e6,
        }
    }
}

/// After this time without a miss, what was learnt from misses counts half.
const SLACK_HALF_LIFE: f64 = 30.0;

/// By how much requests have taken longer than forecast: the quantile `1 - MISSED` of that, followed
/// by steps that balance there (Robbins and Monro 1951), and forgotten with time.
#[derive(Debug)]
pub(crate) struct Slack {
    origin: Instant,
    /// Seconds, the bits of an `f64`, and when that was, in milliseconds from `origin`.
    seconds: AtomicU64,
    at: AtomicU64,
}

impl Slack {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
            seconds: AtomicU64::new(0),
            at: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn seconds(&self) -> f64 {
        let seconds = f64::from_bits(self.seconds.load(Ordering::Relaxed));
        let age = self.now().saturating_sub(self.at.load(Ordering::Relaxed)) as f64 / 1e3;
        seconds * (-age / SLACK_HALF_LIFE).exp2()
    }

    /// A request took `error` seconds longer than forecast; `objective` scales the steps and bounds
    /// the slack. One that the forecast was not needed for (`decisive` is false) can only lower it.
    fn learn(&self, error: f64, objective: f64, decisive: bool) {
        let before = self.seconds();
        let step = objective / 50.0;
        let after = match (error > before, decisive) {
            (true, true) => before + step * (1.0 - MISSED),
            (true, false) => return,
            (false, _) => before - step * MISSED,
        };
        // Two that learn at once lose one step of many.
        let bounded = after.clamp(0.0, objective / 2.0);
        self.seconds.store(bounded.to_bits(), Ordering::Relaxed);
        self.at.store(self.now(), Ordering::Relaxed);
    }
}

/// What was forecast for a request that was let in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Expected {
    /// Seconds until its answer.
    pub(crate) seconds: f64,
    /// Whether the forecast says something about the next ones: of a list it does not, since single
    /// texts that come later share the engine with it, nor of what takes longer than the objective by
    /// itself.
    teaches: bool,
}

/// What would become of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// It should be answered in time.
    InTime(Expected),
    /// It would take `expected` seconds, `late` more than it has.
    TooLate { expected: f64, late: f64 },
    /// Its own deadline is before what it takes on an idle server, so no other replica could either.
    Never { alone: f64 },
}

/// The forecaster of one model.
#[derive(Debug)]
pub(crate) struct Forecast {
    pub(crate) curve: ServiceCurve,
    pub(crate) busy: Busy,
    slack: Slack,
    /// Tokens of text, by its bytes: the bits of an `f64`.
    tokens_a_byte: AtomicU64,
    slots: Arc<Slots>,
    /// Seconds within which requests should be answered; `None` when that is nobody's concern.
    objective: Option<f64>,
    /// Tokens in a batch, as configured and as the engine can take.
    batch_tokens_max: AtomicU64,
}

/// Tokens that a text has beside its words: `[CLS]` and `[SEP]`.
const SPECIAL: f64 = 2.0;

impl Forecast {
    pub(crate) fn new(slots: Arc<Slots>, objective: Duration, batch_tokens_max: usize) -> Self {
        let objective = objective.as_secs_f64();
        Self {
            curve: ServiceCurve::new(),
            busy: Busy::new(),
            slack: Slack::new(),
            // English has about four letters a word piece.
            tokens_a_byte: AtomicU64::new(0.25_f64.to_bits()),
            slots,
            objective: (objective > 0.0).then_some(objective),
            batch_tokens_max: AtomicU64::new(batch_tokens_max as u64),
        }
    }

    /// Tokens that a text of `bytes` will probably have.
    pub(crate) fn tokens_of(&self, bytes: usize, tokens_max: usize) -> usize {
        let rate = f64::from_bits(self.tokens_a_byte.load(Ordering::Relaxed));
        let tokens = SPECIAL + rate * bytes as f64;
        (tokens as usize).clamp(1, tokens_max.max(1))
    }

    /// A text of `bytes` had `tokens`, none of them cut off.
    pub(crate) fn learn_tokens(&self, bytes: usize, tokens: usize) {
        if bytes < 4 {
            return;
        }
        let rate = f64::from_bits(self.tokens_a_byte.load(Ordering::Relaxed));
        let found = (tokens as f64 - SPECIAL).max(0.0) / bytes as f64;
        let blended = rate + 0.01 * (found - rate);
        self.tokens_a_byte
            .store(blended.to_bits(), Ordering::Relaxed);
    }

    /// Tokens that the next batch may have: what fits into a quarter of the objective.
    pub(crate) fn batch_tokens(&self) -> usize {
        let max = self.batch_tokens_max.load(Ordering::Relaxed) as f64;
        tokens_a_batch(self.curve.line(), self.objective, max) as usize
    }

    /// The engine takes no more than `tokens` in a batch.
    pub(crate) fn limit_batch(&self, tokens: usize) {
        self.batch_tokens_max
            .fetch_min(tokens as u64, Ordering::Relaxed);
    }

    /// Seconds that a request may take before its tokens wait, whose deadline is in `remaining` seconds.
    pub(crate) fn allowed(&self, remaining: Option<f64>) -> Option<f64> {
        let objective = self.objective.map(|objective| PROMISE * objective);
        [objective, remaining]
            .into_iter()
            .flatten()
            .reduce(f64::min)
    }

    /// What becomes of a request of `tokens` in `class` that comes now, has `remaining` seconds by its own
    /// deadline and has `spent` some already.
    pub(crate) fn judge(
        &self,
        class: Class,
        tokens: usize,
        (remaining, spent): (Option<f64>, f64),
    ) -> Verdict {
        let line = self.curve.line();
        let budget = self.batch_tokens() as f64;
        let left = self.busy.left(Instant::now());
        let ahead = self.slots.tokens(class) as f64;
        let beside = self.slots.tokens(class.other()) as f64;
        let own = tokens as f64;
        let expected = left + seconds(line, budget, work(ahead, own, beside));
        let alone = seconds(line, budget, own);
        let is_stretched = |objective: f64| ALONE * alone > objective;
        let in_time = Verdict::InTime(Expected {
            seconds: expected,
            teaches: class == Class::Single && !self.objective.is_some_and(is_stretched),
        });
        // A deadline that is far out of reach is not worth the try.
        if remaining.is_some_and(|remaining| alone > 2.0 * remaining) {
            return Verdict::Never { alone };
        }
        // Whoever finds nothing before it is let in: nothing could be sooner.
        if ahead + beside == 0.0 && left == 0.0 {
            return in_time;
        }
        let objective = self
            .objective
            .map(|objective| PROMISE * objective.max(ALONE * alone) - self.slack.seconds() - spent);
        let allowed = match (objective, remaining) {
            (Some(allowed), Some(remaining)) => allowed.min(remaining),
            (Some(bound), None) | (None, Some(bound)) => bound,
            (None, None) => return in_time,
        };
        if expected <= allowed {
            in_time
        } else {
            let late = expected - allowed;
            Verdict::TooLate { expected, late }
        }
    }

    /// A request that was forecast so was answered after `took`.
    pub(crate) fn learn(&self, expected: &Expected, took: Duration) {
        if let Some(objective) = self.objective.filter(|_| expected.teaches) {
            let error = took.as_secs_f64() - expected.seconds;
            let decisive = expected.seconds > BATCH_SHARE * objective;
            self.slack.learn(error, objective, decisive);
        }
    }

    /// Time until what waits now is done.
    pub(crate) fn drain_time(&self) -> Duration {
        let waiting: usize = [Class::Single, Class::List]
            .map(|class| self.slots.tokens(class))
            .iter()
            .sum();
        let (line, budget) = (self.curve.line(), self.batch_tokens() as f64);
        let drain = self.busy.left(Instant::now()) + seconds(line, budget, waiting as f64);
        Duration::try_from_secs_f64(drain).unwrap_or(Duration::MAX)
    }

    /// Requests of `tokens` that the engine can answer in a second, in batches as large as may be.
    pub(crate) fn capacity(&self, tokens: f64) -> f64 {
        let budget = self.batch_tokens() as f64;
        budget / seconds(self.curve.line(), budget, budget).max(1e-9) / tokens
    }
}

/// Tokens of the largest batch, of `max` tokens at most, for an objective in seconds.
pub(crate) fn tokens_a_batch(line: Line, objective: Option<f64>, max: f64) -> f64 {
    let Some(objective) = objective else {
        return max;
    };
    line.tokens_within(BATCH_SHARE * objective).clamp(1.0, max)
}

/// Tokens that are computed until the last of `own` is, behind `ahead` of the same class and beside
/// another class, of which as much is taken as of one's own.
fn work(ahead: f64, own: f64, beside: f64) -> f64 {
    ahead + own + beside.min(ahead + own)
}

fn seconds(line: Line, budget: f64, tokens: f64) -> f64 {
    line.seconds((tokens / budget).ceil(), tokens)
}

#[cfg(test)]
mod tests;
