//! How long a request that comes now will take, and whether that is soon enough.
//!
//! Reads the service curve, what waits and what runs; all of them atomics. A forecast is as good as
//! the curve, so what it was wrong by is learnt as well ([`Slack`]), and the promise is kept for 99.5
//! of 100 admitted requests rather than for the mean one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::host::large;
use crate::model::Tokenizer;
use crate::serving::queue::{Class, Slots};
use crate::serving::timing::{BATCH_SHARE, EngineTiming};

/// Share of requests that may take longer than forecast.
const MISSED: f64 = 0.005;

/// Part of the objective within which the answer should leave: the rest is for what is not seen from
/// here, from the client's socket to the admission and back.
pub(crate) const PROMISE: f64 = 0.9;

/// An objective that cannot be kept by an idle server is stretched to so many times what the request
/// takes alone: one batch runs, one is the request's own, one is for all that is uncertain.
const ALONE: f64 = 3.0;

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

/// The time of a request, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLeft {
    /// Until its own deadline, if it has one.
    pub(crate) remaining: Option<f64>,
    /// Since its body was complete.
    pub(crate) spent: f64,
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
    timing: Arc<EngineTiming>,
    slack: Slack,
    /// Tokens of text, by its bytes: the bits of an `f64`.
    tokens_a_byte: AtomicU64,
    /// Tokens of the longest sequence.
    tokens_max: usize,
    /// Bytes from which on a request is a large one.
    large: usize,
    slots: Arc<Slots>,
}

/// Tokens that a text has beside its words: `[CLS]` and `[SEP]`.
const SPECIAL: f64 = 2.0;

impl Forecast {
    /// For a model with this tokenizer, behind the texts that hold `slots`.
    pub(crate) fn new(timing: Arc<EngineTiming>, slots: Arc<Slots>, tokenizer: &Tokenizer) -> Self {
        Self {
            timing,
            tokens_max: tokenizer.max_tokens(),
            large: large(tokenizer),
            slack: Slack::new(),
            // English has about four letters a word piece.
            tokens_a_byte: AtomicU64::new(0.25_f64.to_bits()),
            slots,
        }
    }

    /// The engine that it forecasts.
    pub(crate) fn timing(&self) -> &EngineTiming {
        &self.timing
    }

    /// Tokens that a text of `bytes` will probably have.
    pub(crate) fn tokens_of(&self, bytes: usize) -> usize {
        let rate = f64::from_bits(self.tokens_a_byte.load(Ordering::Relaxed));
        let tokens = SPECIAL + rate * bytes as f64;
        (tokens as usize).clamp(1, self.tokens_max.max(1))
    }

    /// Whether a body or texts of `bytes` together take turns on the host.
    pub(crate) fn is_large(&self, bytes: usize) -> bool {
        bytes >= self.large
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

    /// Seconds that a request may take before its tokens wait, whose deadline is in `remaining` seconds.
    pub(crate) fn allowed(&self, remaining: Option<f64>) -> Option<f64> {
        let objective = self.timing.objective();
        let objective = objective.map(|objective| PROMISE * objective);
        [objective, remaining]
            .into_iter()
            .flatten()
            .reduce(f64::min)
    }

    /// What would become of a request of `tokens` in `class` that arrives now.
    pub(crate) fn judge(
        &self,
        class: Class,
        tokens: usize,
        TimeLeft { remaining, spent }: TimeLeft,
    ) -> Verdict {
        let left = self.timing.busy.left(Instant::now());
        let ahead = self.slots.tokens(class) as f64;
        let beside = self.slots.tokens(class.other()) as f64;
        let own = tokens as f64;
        let expected = left + self.timing.seconds(work(ahead, own, beside));
        let alone = self.timing.seconds(own);
        let is_stretched = |objective: f64| ALONE * alone > objective;
        let in_time = Verdict::InTime(Expected {
            seconds: expected,
            teaches: class == Class::Single && !self.timing.objective().is_some_and(is_stretched),
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
            .timing
            .objective()
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
        if let Some(objective) = self.timing.objective().filter(|_| expected.teaches) {
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
        let left = self.timing.busy.left(Instant::now());
        let drain = left + self.timing.seconds(waiting as f64);
        Duration::try_from_secs_f64(drain).unwrap_or(Duration::MAX)
    }
}

/// Tokens that are computed until the last of `own` is, behind `ahead` of the same class and beside
/// another class, of which as much is taken as of one's own.
fn work(ahead: f64, own: f64, beside: f64) -> f64 {
    ahead + own + beside.min(ahead + own)
}

#[cfg(test)]
mod tests;
