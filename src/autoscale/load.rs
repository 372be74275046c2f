//! The offered load, smoothed: requests per second and their size.

use super::surge::{Direction, Flows, MEAN_SECONDS, Smoothed};
use crate::serving::Counts;

/// Time constant of the slower rate, in seconds. The slope is the difference of both.
const SLOW_SECONDS: f64 = 60.0;

/// Time constant of the mean request size in seconds.
const SIZE_SECONDS: f64 = 60.0;

/// Tokens of a request before the first one: a short question.
const TOKENS: f64 = 16.0;

/// The smoothed offered requests and tokens count at most as this factor times what is answered or, if that is more,
/// what could be answered. A client may retry thousands of times per second, and a refused list costs its sender
/// nothing. Scalers do not grow faster than this between two readings.
const OFFERED_MAX: f64 = 10.0;

/// Time constant in seconds over which records of a log are spread. They are counted about once a second, all that were
/// written since, and did not come at once.
const LOG_SECONDS: f64 = 1.0;

/// Seconds without a request after which the load is zero.
const IDLE_SECONDS: f64 = 60.0;

/// What one replica takes, for the load of many.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReplicaShare {
    /// Requests per second that it can answer within the objective; 0 if unknown.
    pub capacity: f64,
    /// Target share of that capacity.
    pub utilization: f64,
}

/// The state of the smoothed load.
#[derive(Debug)]
pub struct OfferedLoad {
    before: Counts,
    smoothed: Smoothed,
    /// Offered requests per second, by a slower mean.
    slow: f64,
    /// Requests of known size: their number, texts, tokens and squared tokens. Older ones count less.
    sized: [f64; 4],
    /// Bytes of large bodies whose requests were counted in an earlier update.
    late_large_bytes: f64,
    /// Discounted requests that are to be subtracted in a later update: at most 0.
    late_discounts: f64,
    /// Records of a log that were counted and are yet to be spread.
    late_records: f64,
    /// Seconds since the last request.
    idle_seconds: f64,
    /// Offered requests per second count at most as so many.
    offered_max: f64,
}

impl OfferedLoad {
    /// No load. `counts` are the counters so far.
    pub fn new(counts: Counts) -> Self {
        Self {
            before: counts,
            smoothed: Smoothed::new(),
            slow: 0.0,
            sized: [0.0; 4],
            late_large_bytes: 0.0,
            late_discounts: 0.0,
            late_records: 0.0,
            idle_seconds: IDLE_SECONDS,
            offered_max: f64::INFINITY,
        }
    }

    /// Updates the load with the counters after `elapsed` seconds. Returns the tokens that were offered in them.
    pub fn update(&mut self, counts: Counts, elapsed: f64, replica: ReplicaShare) -> f64 {
        if elapsed <= 0.0 {
            return 0.0;
        }
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let before = std::mem::replace(&mut self.before, counts);
        let discounted = since(counts.discounted, before.discounted);
        // A request may arrive before this update and be discounted after it.
        let logged = since(counts.logged, before.logged);
        let asked = since(counts.offered, before.offered) - logged;
        let recorded = self.spread_records(logged, elapsed);
        let arrived = asked + recorded - discounted + self.late_discounts;
        self.late_discounts = arrived.min(0.0);
        let offered = arrived.max(0.0);
        let failed = since(counts.failed, before.failed);
        let tokens = offered * self.learn_sizes(&counts, &before, elapsed);
        self.late_large_bytes += since(counts.large, before.large);
        let large = if offered > 0.0 {
            std::mem::take(&mut self.late_large_bytes)
        } else {
            0.0
        };
        let flows = Flows {
            offered,
            accepted: since(counts.answered, before.answered) + failed,
            refused: since(counts.shed, before.shed),
            overloaded: since(counts.overloaded, before.overloaded),
            failed,
            tokens,
            large,
        };
        self.smooth(flows, elapsed, replica);
        self.idle_seconds = if offered > 0.0 {
            0.0
        } else {
            self.idle_seconds + elapsed
        };
        if self.idle_seconds >= IDLE_SECONDS {
            // The first request after an idle minute must not bring back the old load.
            self.smoothed.clear();
            self.slow = 0.0;
        }
        tokens
    }

    /// The part of the records counted so far that belongs to the last `elapsed` seconds.
    fn spread_records(&mut self, logged: f64, elapsed: f64) -> f64 {
        self.late_records += logged;
        let mut part = self.late_records * (1.0 - (-elapsed / LOG_SECONDS).exp());
        if self.late_records < 1.0 {
            // The rest would never end.
            part = self.late_records;
        }
        self.late_records -= part;
        part
    }

    fn smooth(&mut self, flows: Flows, elapsed: f64, replica: ReplicaShare) {
        let size = self.request_tokens();
        let target = replica.utilization * replica.capacity;
        let direction = self.smoothed.add(flows, elapsed, size, target);
        self.slow +=
            (1.0 - (-elapsed / SLOW_SECONDS).exp()) * (flows.offered / elapsed - self.slow);
        // Without a model, nothing is answered and there is no capacity to compare with.
        self.offered_max = if replica.capacity > 0.0 {
            OFFERED_MAX * self.smoothed.mean().accepted.max(replica.capacity)
        } else {
            f64::INFINITY
        };
        self.smoothed.bound(self.offered_max, size);
        self.slow = self.slow.min(self.offered_max);
        // A step is no trend.
        let now = self.smoothed.mean().offered;
        match direction {
            Some(Direction::Rise) => self.slow = self.slow.max(now),
            Some(Direction::Fall) => self.slow = self.slow.min(now),
            None => {}
        }
    }

    /// Learns the sizes of new requests, and returns their mean tokens.
    fn learn_sizes(&mut self, counts: &Counts, before: &Counts, elapsed: f64) -> f64 {
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let new = [
            since(counts.sized, before.sized),
            since(counts.texts, before.texts),
            since(counts.tokens, before.tokens),
            since(counts.squares, before.squares),
        ];
        if new[0] == 0.0 {
            // Time without requests says nothing about their size.
            return self.request_tokens();
        }
        let kept = (-elapsed / SIZE_SECONDS).exp();
        for (sum, new) in self.sized.iter_mut().zip(new) {
            *sum = *sum * kept + new;
        }
        new[2] / new[0]
    }

    /// Tokens of the mean request.
    pub fn request_tokens(&self) -> f64 {
        let [count, _, tokens, _] = self.sized;
        if count > 0.0 {
            (tokens / count).max(1.0)
        } else {
            TOKENS
        }
    }

    /// Texts of the mean request.
    pub fn request_texts(&self) -> f64 {
        let [count, texts, ..] = self.sized;
        if count > 0.0 {
            (texts / count).max(1.0)
        } else {
            1.0
        }
    }

    /// Coefficient of variation of request sizes: standard deviation divided by mean.
    pub fn spread(&self) -> f64 {
        let [count, _, _, squares] = self.sized;
        let mean = self.request_tokens();
        if count > 1.0 {
            (squares / count / (mean * mean) - 1.0).max(0.0).sqrt()
        } else {
            0.0
        }
    }

    /// The variance of the rate itself from second to second, as a share of its square; 0 for Poisson arrivals.
    pub fn burstiness(&self) -> f64 {
        self.smoothed.burstiness(self.spread())
    }

    /// The highest rate of a second by the mean rate; infinite while little is known.
    pub fn highest(&self) -> f64 {
        self.smoothed.highest()
    }

    /// The current rates per second. Exactly zero after a minute without requests.
    pub fn rates(&self) -> Flows {
        if self.idle_seconds >= IDLE_SECONDS {
            return Flows::default();
        }
        let size = self.request_tokens();
        self.smoothed.rates(size).bounded(self.offered_max, size)
    }

    /// Change of the offered requests per second, in requests per second.
    pub fn slope(&self) -> f64 {
        if self.idle_seconds >= IDLE_SECONDS {
            return 0.0;
        }
        // On a ramp, each rate lags by its time constant.
        (self.smoothed.mean().offered - self.slow) / (SLOW_SECONDS - MEAN_SECONDS)
    }
}

#[cfg(test)]
mod tests;
