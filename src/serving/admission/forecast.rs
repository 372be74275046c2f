//! Forecasts how long a request that arrives now will take, and decides whether that is in time.
//!
//! Input: the service curve, the waiting tokens and the engine's busy time, all of them atomics. The forecast is
//! only as good as the curve, so its errors are learned too ([`Slack`]): the promise holds for 99.5 of 100
//! admitted requests, not just for the mean one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::host::large;
use crate::model::Tokenizer;
use crate::serving::queue::{Class, Slots};
use crate::serving::timing::{BATCH_SHARE, EngineTiming};
use intentd_base::atomic::AtomicF64;

/// Share of requests that may take longer than forecast.
const MISSED: f64 = 0.005;

/// Share of the objective within which the answer should leave. The rest is for what is not visible here:
/// from the client's socket to admission, and back.
pub(crate) const PROMISE: f64 = 0.9;

/// An objective that an idle server cannot keep is stretched to this many times the request's own time: for
/// the running batch, for the request's own batch, and for uncertainty.
const ALONE: f64 = 3.0;

/// Half-life of the slack without misses, in seconds.
const SLACK_HALF_LIFE: f64 = 30.0;

/// The quantile `1 - MISSED` of forecast errors, tracked by stochastic approximation (Robbins and Monro 1951).
/// It decays with time.
#[derive(Debug)]
pub(crate) struct Slack {
    origin: Instant,
    /// The slack in seconds, and its time in milliseconds from `origin`.
    seconds: AtomicF64,
    at: AtomicU64,
}

impl Slack {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
            seconds: AtomicF64::default(),
            at: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn seconds(&self) -> f64 {
        let seconds = self.seconds.load();
        let age = self.now().saturating_sub(self.at.load(Ordering::Relaxed)) as f64 / 1e3;
        seconds * (-age / SLACK_HALF_LIFE).exp2()
    }

    /// Learns that a request took `error` seconds longer than forecast. `objective` scales the steps and bounds
    /// the slack. A request whose forecast did not matter (`decisive` is false) can only lower the slack.
    fn learn(&self, error: f64, objective: f64, decisive: bool) {
        let before = self.seconds();
        let step = objective / 50.0;
        let after = match (error > before, decisive) {
            (true, true) => before + step * (1.0 - MISSED),
            (true, false) => return,
            (false, _) => before - step * MISSED,
        };
        // A race between two updates loses one step of many.
        let bounded = after.clamp(0.0, objective / 2.0);
        self.seconds.store(bounded);
        self.at.store(self.now(), Ordering::Relaxed);
    }
}

/// The forecast for an admitted request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExpectedLatency {
    /// Seconds until its answer.
    pub(crate) seconds: f64,
    /// Whether its error says something about later forecasts. It does not for a list, which shares the engine
    /// with single texts that arrive later, nor for a request that takes longer than the objective on its own.
    is_representative: bool,
}

/// Time left to a request and time spent on it, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLeft {
    /// Until its deadline, if it has one.
    pub(crate) remaining: Option<f64>,
    /// Since its body was complete.
    pub(crate) spent: f64,
}

/// Whether a request can be answered in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Feasibility {
    /// It should be answered in time.
    InTime(ExpectedLatency),
    /// It would take `expected` seconds, which is `late` seconds too long.
    TooLate {
        expected: f64,
        late: f64,
        /// Whether only the request's own deadline is missed, and not the objective.
        keeps_objective: bool,
    },
    /// Even an idle server would take too long (`alone` seconds) for its deadline, so no replica can keep it.
    Unreachable { alone: f64 },
}

/// The forecaster of one model.
#[derive(Debug)]
pub(crate) struct Forecast {
    timing: Arc<EngineTiming>,
    slack: Slack,
    /// Tokens per byte of text.
    tokens_a_byte: AtomicF64,
    /// Tokens of the longest sequence.
    tokens_max: usize,
    /// Size in bytes from which a request is large.
    large: usize,
    slots: Arc<Slots>,
}

/// Special tokens of a text: `[CLS]` and `[SEP]`.
const SPECIAL: f64 = 2.0;

impl Forecast {
    /// A forecaster for the model with this tokenizer and these slots.
    pub(crate) fn new(timing: Arc<EngineTiming>, slots: Arc<Slots>, tokenizer: &Tokenizer) -> Self {
        Self {
            timing,
            tokens_max: tokenizer.max_tokens(),
            large: large(tokenizer),
            slack: Slack::new(),
            // English has about four letters per word piece.
            tokens_a_byte: AtomicF64::new(0.25),
            slots,
        }
    }

    /// The timing of the engine.
    pub(crate) fn timing(&self) -> &EngineTiming {
        &self.timing
    }

    /// The expected number of tokens of a text of `bytes`.
    pub(crate) fn tokens_of(&self, bytes: usize) -> usize {
        let rate = self.tokens_a_byte.load();
        let tokens = SPECIAL + rate * bytes as f64;
        (tokens as usize).clamp(1, self.tokens_max.max(1))
    }

    /// Whether a body, or texts with this total size, take turns on the host.
    pub(crate) fn is_large(&self, bytes: usize) -> bool {
        bytes >= self.large
    }

    /// Learns that a text of `bytes` had `tokens`, without truncation.
    pub(crate) fn learn_tokens(&self, bytes: usize, tokens: usize) {
        if bytes < 4 {
            return;
        }
        let rate = self.tokens_a_byte.load();
        let found = (tokens as f64 - SPECIAL).max(0.0) / bytes as f64;
        let blended = rate + 0.01 * (found - rate);
        self.tokens_a_byte.store(blended);
    }

    /// Seconds that a request may take until its tokens are queued; its deadline is in `remaining` seconds.
    pub(crate) fn allowed(&self, remaining: Option<f64>) -> Option<f64> {
        let objective = self.timing.objective();
        let objective = objective.map(|objective| PROMISE * objective);
        [objective, remaining]
            .into_iter()
            .flatten()
            .reduce(f64::min)
    }

    /// Assesses a request of `tokens` in `class` that arrives now.
    pub(crate) fn assess(
        &self,
        class: Class,
        tokens: usize,
        TimeLeft { remaining, spent }: TimeLeft,
    ) -> Feasibility {
        let left = self.timing.busy.left(Instant::now());
        let ahead = self.slots.tokens(class) as f64;
        let beside = self.slots.tokens(class.other()) as f64;
        let own = tokens as f64;
        let expected = left + self.timing.seconds(tokens_until_done(ahead, own, beside));
        let alone = self.timing.seconds(own);
        let is_stretched = |objective: f64| ALONE * alone > objective;
        let in_time = Feasibility::InTime(ExpectedLatency {
            seconds: expected,
            is_representative: class == Class::Single
                && !self.timing.objective().is_some_and(is_stretched),
        });
        // A deadline that is far out of reach is not worth trying.
        if remaining.is_some_and(|remaining| alone > 2.0 * remaining) {
            return Feasibility::Unreachable { alone };
        }
        // A request that finds an idle server is admitted: no server could be faster.
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
            Feasibility::TooLate {
                expected,
                late,
                keeps_objective: objective.is_some_and(|allowed| expected <= allowed),
            }
        }
    }

    /// Learns that a request with this forecast was answered after `took`.
    pub(crate) fn learn(&self, expected: &ExpectedLatency, took: Duration) {
        if let Some(objective) = self
            .timing
            .objective()
            .filter(|_| expected.is_representative)
        {
            let error = took.as_secs_f64() - expected.seconds;
            let decisive = expected.seconds > BATCH_SHARE * objective;
            self.slack.learn(error, objective, decisive);
        }
    }

    /// Time until all texts that wait now are computed.
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

/// Tokens that are computed until the last of `own` is done: `ahead` in the same class, and as many of the
/// other class (`beside`) as of its own.
fn tokens_until_done(ahead: f64, own: f64, beside: f64) -> f64 {
    ahead + own + beside.min(ahead + own)
}

#[cfg(test)]
mod tests;
