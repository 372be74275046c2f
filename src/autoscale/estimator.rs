//! From observations to the capacity that is published.

use super::learned::{Asked, Contention, HostCost, Learned, RequestCost};
use super::queueing::Capacity;
use super::tail::{TAIL, Tail};
use crate::serving::{EngineTime, Observation, Summary};

/// What the published capacity may change by in a minute, once it is known well: scalers must not
/// follow noise. What is asked for changes it at once; this holds for what is learnt.
const CHANGE_A_MINUTE: f64 = 0.05;

/// From here on it is known well.
const CONFIDENT: f64 = 0.8;

/// Once it has been, so many times as much while it is not: a machine that has changed is not known well, and
/// scalers are not to follow each step of finding out.
const CHANGE_WHILE_UNSURE: f64 = 4.0;

/// More refusals than that are an overload.
const CROWDED: f64 = 0.05;

/// Batches after which half of what can be known of the curve is.
const BATCHES_HALF: f64 = 20.0;

/// Latencies that make a 99th percentile.
const LATENCIES_MIN: u64 = 1000;

/// Loads, by the capacity, at which κ shows: below, batches hardly ever wait for each other.
const TAIL_LOADS: std::ops::RangeInclusive<f64> = 0.4..=1.0;

/// Seconds between simulations, each of which takes a millisecond or two.
const TAIL_SECONDS: f64 = 10.0;

/// What has happened in an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its length in seconds.
    pub elapsed: f64,
    /// Requests that were answered in it.
    pub answered: f64,
    /// Batches that they came in.
    pub batches: f64,
    /// Time of the engine.
    pub engine: EngineTime,
    /// CPU seconds that the host took, where that is known.
    pub host: Option<f64>,
    /// Bytes of large bodies that were read in it.
    pub large: f64,
    /// Requests a second that are offered.
    pub offered: f64,
    /// Of these, the part for which there was no room or no time.
    pub crowded_share: f64,
    /// Latencies of the last minute.
    pub latency: Summary,
    /// Of these, what passed outside of queue and engine.
    pub overhead: Summary,
    /// Spread of the sizes of requests.
    pub spread: f64,
}

/// The capacity as it is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// What the server can do; `rate` is what is published, which follows what is known slowly.
    pub capacity: Capacity,
    /// What it follows from.
    pub learned: Learned,
    /// Requests in flight, on average, at that rate (Little's law): L*.
    pub in_flight: f64,
    /// Requests that wait, on average, at that rate.
    pub waiting: f64,
    /// Requests of the largest batch.
    pub batch_max: f64,
    /// From 0, a guess, to 1.
    pub confidence: f64,
}

/// Follows what a server can do.
#[derive(Debug)]
pub struct Estimator {
    generation: Option<u64>,
    host: HostCost,
    contention: Contention,
    tail: Tail,
    overhead: f64,
    /// κ as last simulated, and seconds since.
    tail_now: f64,
    tail_age: f64,
    /// What the last estimate followed from.
    before: Option<Learned>,
    /// Logarithm of the published by the computed rate.
    gap: f64,
    rate: f64,
    confidence: f64,
    was_confident: bool,
    /// Whether the system says what the host takes.
    host_is_seen: bool,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimator {
    /// Of a server that has not loaded a model yet.
    pub fn new() -> Self {
        Self {
            generation: None,
            host: HostCost::new(),
            contention: Contention::new(),
            tail: Tail::default(),
            overhead: 0.0,
            tail_now: TAIL,
            tail_age: f64::INFINITY,
            before: None,
            gap: 0.0,
            rate: 0.0,
            confidence: 0.0,
            was_confident: false,
            host_is_seen: true,
        }
    }

    /// The capacity after another interval.
    pub fn update(&mut self, seen: &Observation, asked: &Asked, interval: &Interval) -> Estimate {
        let is_new = self.generation.replace(seen.generation) != Some(seen.generation);
        if is_new {
            // What was learnt of another model says nothing about this one; the host is the same.
            *self = Self {
                generation: Some(seen.generation),
                host: self.host,
                overhead: self.overhead,
                host_is_seen: self.host_is_seen,
                ..Self::new()
            };
        } else {
            // The interval in which a model came has seen the one before.
            self.learn(seen, asked, interval);
        }
        let learned = Learned {
            setup: seen.setup,
            token: seen.token,
            batch_tokens: seen.batch_tokens as f64,
            contention: self.contention.factor(),
            host: self.host_cost(),
            byte: seen.byte.0,
            overhead: self.overhead,
            tail: self.tail_now,
        };
        let learned = self.settle_tail(learned, asked, interval);
        let model = learned.model(asked);
        let mut capacity = model.capacity(learned.objective(asked));
        if let Some(before) = &mut self.before
            && !seen.byte.1
        {
            // A first guess is given up at once.
            before.byte = learned.byte;
        }
        self.follow(&learned, asked, &capacity, interval.elapsed);
        capacity.rate *= self.gap.exp();
        capacity.rate_max = capacity.rate_max.max(capacity.rate);
        self.rate = capacity.rate;
        self.confidence = self.confidence_of(seen);
        let service = model.service_at(capacity.rate);
        let latency = service.mean_latency(capacity.rate);
        let objective = asked.objective.unwrap_or(f64::INFINITY);
        // The published rate may be beyond what the queue bears for a while.
        let latency = latency
            .min(objective)
            .min(10.0 * service.batch(model.batch_max));
        Estimate {
            capacity,
            learned,
            in_flight: capacity.rate * latency,
            waiting: service.mean_waiting(capacity.rate),
            batch_max: model.batch_max,
            confidence: self.confidence,
        }
    }

    fn learn(&mut self, seen: &Observation, asked: &Asked, interval: &Interval) {
        self.tail.spread = interval.spread;
        let is_late =
            |slo: f64| interval.latency.count >= LATENCIES_MIN && interval.latency.p99 > slo;
        let overloaded = interval.crowded_share > CROWDED || asked.objective.is_some_and(is_late);
        self.host_is_seen = interval.host.is_some();
        if let Some(host) = interval.host
            && (!overloaded || self.host.cost().is_none())
        {
            let Interval {
                answered, batches, ..
            } = *interval;
            // What goes with the size of bodies has a cost of its own.
            let others = (host - seen.byte.0 * interval.large).max(0.0);
            self.host.learn(answered, batches, others, interval.elapsed);
        }
        if overloaded {
            return;
        }
        if asked.shares_cores
            && let Some(host) = interval.host
        {
            let share = host / interval.elapsed / asked.cores;
            let EngineTime { elapsed, spent } = interval.engine;
            let (spent, between) = (spent.as_secs_f64(), elapsed.as_secs_f64());
            self.contention
                .learn(spent, between, share, interval.elapsed);
        }
        if interval.overhead.count >= LATENCIES_MIN / 5 {
            self.overhead = interval.overhead.p99;
        }
    }

    /// What requests cost outside of the engine; nothing where the system does not say.
    fn host_cost(&self) -> RequestCost {
        let guess = if self.host_is_seen {
            RequestCost::GUESS
        } else {
            RequestCost::default()
        };
        self.host.cost().unwrap_or(guess)
    }

    /// Simulates κ anew when it is time, at the rate that follows from it.
    fn settle_tail(&mut self, mut learned: Learned, asked: &Asked, interval: &Interval) -> Learned {
        self.tail_age += interval.elapsed;
        if self.tail_age < TAIL_SECONDS || asked.objective.is_none() {
            return learned;
        }
        let model = learned.model(asked);
        let load = interval.offered / self.rate.max(f64::MIN_POSITIVE);
        let Summary { count, mean, p99 } = interval.latency;
        if TAIL_LOADS.contains(&load) && interval.crowded_share < 0.01 && count >= LATENCIES_MIN {
            self.tail.observe(&model, interval.offered, p99 / mean);
        }
        // The rate depends on κ and κ on the rate; two steps are close, and more come with time.
        let steps = if self.tail_age.is_finite() { 1 } else { 3 };
        for _ in 0..steps {
            let rate = model.capacity(learned.objective(asked)).rate;
            let found = self.tail.at(&model, rate);
            learned.tail = f64::midpoint(learned.tail, found);
        }
        self.tail_now = learned.tail;
        self.tail_age = 0.0;
        learned
    }

    /// Moves the published rate towards the computed one.
    fn follow(&mut self, learned: &Learned, asked: &Asked, now: &Capacity, elapsed: f64) {
        let before = self.before.replace(*learned);
        self.was_confident |= self.confidence >= CONFIDENT;
        let Some(before) = before.filter(|_| self.was_confident) else {
            self.gap = 0.0;
            return;
        };
        let same = before.model(asked).capacity(before.objective(asked));
        let step = (same.rate / now.rate).ln();
        if step.is_finite() {
            self.gap += step;
        }
        let mut most = (1.0 + CHANGE_A_MINUTE).ln() * elapsed / 60.0;
        if self.confidence < CONFIDENT {
            most *= CHANGE_WHILE_UNSURE;
        }
        self.gap -= self.gap.clamp(-most, most);
    }

    fn confidence_of(&self, seen: &Observation) -> f64 {
        let batches = seen.batches as f64;
        let curve = batches / (batches + BATCHES_HALF) * (1.0 - seen.fit_error.min(1.0));
        // Before there was load, the host's part is not known.
        if !self.host_is_seen {
            // It will never be known, and that is no reason to follow noise.
            return curve;
        }
        curve * (0.5 + 0.5 * self.host.confidence(self.rate))
    }
}

#[cfg(test)]
mod tests;
