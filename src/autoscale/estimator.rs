//! Estimates the published capacity from observations.

use super::contention::{Contention, EnginePace};
use super::feasibility::Feasibility;
use super::host::ThreadTime;
use super::learned::{Conditions, HostCost, Learned, RequestCost};
use super::queueing::Capacity;
use super::tail::{TAIL, Tail, Variation};
use crate::serving::{EngineTime, LatencySummary, Observation, PROMISE};

/// Maximum change of the published capacity per minute once it is well known, so that scalers do not follow
/// noise. Holds for learned changes only; changed requests change it at once.
const CHANGE_A_MINUTE: f64 = 0.05;

/// Confidence from which the capacity is well known.
const CONFIDENT: f64 = 0.8;

/// Factor on that maximum if the capacity was well known but is not any more. After a change of the machine,
/// scalers should not follow every step of learning it.
const CHANGE_WHILE_UNSURE: f64 = 4.0;

/// Share of refused requests from which the server counts as overloaded.
const OVERLOAD_SHARE: f64 = 0.05;

/// Batches after which the curve is half known.
const BATCHES_HALF: f64 = 20.0;

/// Latencies required for a 99th percentile.
const LATENCIES_MIN: u64 = 1000;

/// Time constant in seconds in which the overhead of an overload is forgotten once there are few requests.
const OVERHEAD_SECONDS: f64 = 60.0;

/// While the objective is missed because of load, at most this part of it counts as overhead. Overload prolongs the time
/// outside the queue without limit, which says more about this moment than about the rate that would keep the objective.
const OVERHEAD_MAX: f64 = 0.5;

/// Share of the rate without an objective up to which load is no reason to miss it.
const LITTLE_LOAD: f64 = 0.5;

/// Utilizations at which κ can be observed. At lower ones, batches hardly ever wait for each other.
const TAIL_LOADS: std::ops::RangeInclusive<f64> = 0.4..=1.2;

/// Seconds of the window of latencies, and the requests in it by those that the rate explains: κ is observed if the load has
/// been about the same for as long.
pub(super) const WINDOW: f64 = 60.0;
const STEADY: std::ops::RangeInclusive<f64> = 0.8..=1.25;

/// Share of refused requests from which the longest latencies are not seen.
const CUT: f64 = 0.001;

/// Seconds between simulations. Each takes a few milliseconds, and tens of them for a fast server with bursty arrivals.
const TAIL_SECONDS: f64 = 10.0;

/// What was observed in an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObservedInterval {
    /// Its length in seconds.
    pub elapsed: f64,
    /// Answered requests.
    pub answered: f64,
    /// Batches.
    pub batches: f64,
    /// Time of the engine in it.
    pub engine: EngineTime,
    /// CPU seconds of the host, if known.
    pub host: Option<f64>,
    /// Time of the threads that compute batches, if known.
    pub threads: Option<ThreadTime>,
    /// The number of these threads.
    pub threads_max: f64,
    /// Bytes of large bodies that were read.
    pub large: f64,
    /// Offered requests per second.
    pub offered: f64,
    /// The share of them that was refused because of overload.
    pub overload_share: f64,
    /// Whether the objective is being missed.
    pub is_missed: bool,
    /// Latencies of the last minute.
    pub latency: LatencySummary,
    /// The part of these latencies outside queue and engine.
    pub overhead: LatencySummary,
    /// How requests differ from equal ones that arrive at random.
    pub variation: Variation,
}

/// The published capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The capacity. Its `rate` is the published one, which follows the computed one slowly.
    pub capacity: Capacity,
    /// The rate that the engine and the host sustain, whatever the objective.
    pub usable: f64,
    /// The learned values that it follows from.
    pub learned: Learned,
    /// L*: mean number of requests in flight at the computed rate, by Little's law.
    pub in_flight: f64,
    /// Mean number of waiting requests at the computed rate.
    pub waiting: f64,
    /// Requests of the largest batch.
    pub batch_max: f64,
    /// How well the capacity is known, from 0 (a guess) to 1.
    pub confidence: f64,
}

/// Estimates the capacity of a server over time.
#[derive(Debug)]
pub struct Estimator {
    generation: Option<u64>,
    host: HostCost,
    contention: Contention,
    tail: Tail,
    overhead: f64,
    /// The same while the objective is kept.
    overhead_kept: f64,
    /// κ by the last simulation, and the seconds since then.
    tail_now: f64,
    tail_age: f64,
    /// The learned values of the last estimate.
    before: Option<Learned>,
    /// Logarithm of the ratio of the published rate to the computed one.
    log_gap: f64,
    rate: f64,
    feasibility: Feasibility,
    /// The last [`Estimate::usable`].
    usable: f64,
    confidence: f64,
    was_confident: bool,
    /// Whether the system reports the CPU time of the host.
    host_is_seen: bool,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimator {
    /// An estimator for a server without a model.
    pub fn new() -> Self {
        Self {
            generation: None,
            host: HostCost::new(),
            contention: Contention::new(),
            tail: Tail::default(),
            overhead: 0.0,
            overhead_kept: 0.0,
            tail_now: TAIL,
            tail_age: f64::INFINITY,
            before: None,
            log_gap: 0.0,
            rate: 0.0,
            feasibility: Feasibility::new(),
            usable: 0.0,
            confidence: 0.0,
            was_confident: false,
            host_is_seen: true,
        }
    }

    /// The estimate after another interval.
    pub fn update(
        &mut self,
        seen: &Observation,
        conditions: &Conditions,
        interval: &ObservedInterval,
    ) -> Estimate {
        let is_new = self.generation.replace(seen.generation) != Some(seen.generation);
        if is_new {
            // Values of another model say nothing about this one, but the machine is the same.
            *self = Self {
                generation: Some(seen.generation),
                host: self.host,
                contention: self.contention.of_machine(),
                overhead: self.overhead,
                overhead_kept: self.overhead_kept,
                host_is_seen: self.host_is_seen,
                ..Self::new()
            };
        } else {
            // An interval in which the model changed covers the old one too, so only later ones count.
            self.learn(seen, conditions, interval);
        }
        // What is asked does not depend on the model.
        self.tail.variation = interval.variation;
        let learned = Learned {
            setup: seen.setup,
            token: seen.token,
            batch_tokens: seen.batch_tokens as f64,
            contention: if conditions.shares_cores {
                self.contention.factor(conditions.cores)
            } else {
                1.0
            },
            host: self.host_cost(),
            byte: seen.byte.seconds,
            overhead: self.overhead,
            tail: self.tail_now,
        };
        let learned = self.update_tail(learned, conditions, interval);
        let model = learned.model(conditions);
        let computed = self
            .tail
            .capacity(model.capacity(learned.objective(conditions)));
        if let Some(before) = &mut self.before
            && !seen.byte.is_known
        {
            // A first guess is replaced at once.
            before.byte = learned.byte;
        }
        self.follow(&learned, conditions, &computed, interval.elapsed);
        self.usable = model.capacity(None).rate;
        let mut capacity = self
            .feasibility
            .settle(computed, self.usable, interval.elapsed);
        // The published rate may be higher than the queue can sustain for a while. What is usual in the queue is
        // therefore that of the computed rate.
        let service = model.service_at(capacity.rate);
        let latency = service.mean_latency(capacity.rate);
        let objective = conditions.objective.unwrap_or(f64::INFINITY);
        let in_flight = capacity.rate * latency.min(objective);
        let waiting = service.mean_waiting(capacity.rate);
        if capacity.feasible == computed.feasible {
            capacity.rate = (capacity.rate * self.log_gap.exp()).min(capacity.rate_max);
        }
        self.rate = capacity.rate;
        self.confidence = self.confidence_of(seen);
        Estimate {
            capacity,
            usable: self.usable,
            learned,
            in_flight,
            waiting,
            batch_max: model.batch_max,
            confidence: self.confidence,
        }
    }

    fn learn(&mut self, seen: &Observation, conditions: &Conditions, interval: &ObservedInterval) {
        let is_late =
            |slo: f64| interval.latency.count >= LATENCIES_MIN && interval.latency.p99 > slo;
        let is_refusing = interval.overload_share > OVERLOAD_SHARE;
        let overloaded = is_refusing || conditions.objective.is_some_and(is_late);
        // A first load that is too much tells the cost of answers as well, but not that of answers and refusals.
        let is_unknown = self.host.cost().is_none();
        self.host_is_seen = interval.host.is_some();
        if let Some(host) = interval.host
            && (!overloaded || is_unknown && !is_refusing)
        {
            let ObservedInterval {
                answered, batches, ..
            } = *interval;
            // The cost per byte of large bodies is counted separately.
            let others = (host - seen.byte.seconds * interval.large).max(0.0);
            self.host.learn(answered, batches, others, interval.elapsed);
        }
        if conditions.shares_cores {
            self.learn_contention(seen, conditions, interval);
        }
        let is_missed = overloaded || interval.is_missed;
        self.learn_overhead(is_missed, conditions, interval);
    }

    /// Learns how long requests are outside queue and engine.
    fn learn_overhead(
        &mut self,
        is_missed: bool,
        conditions: &Conditions,
        interval: &ObservedInterval,
    ) {
        if interval.overhead.count < LATENCIES_MIN / 5 {
            // What overload left is no longer seen.
            let gain = 1.0 - (-interval.elapsed / OVERHEAD_SECONDS).exp();
            self.overhead += gain * (self.overhead_kept - self.overhead);
            return;
        }
        let found = interval.overhead.p99;
        // An objective that is missed at little load is missed for another reason than load.
        if is_missed && interval.offered > LITTLE_LOAD * self.usable {
            let promise = conditions.objective.map(|objective| PROMISE * objective);
            let most = OVERHEAD_MAX * promise.unwrap_or(f64::INFINITY);
            self.overhead = found.min(most.max(self.overhead_kept));
        } else {
            self.overhead = found;
            self.overhead_kept = found;
        }
    }

    /// Learns how much longer batches take than their own work and the host's share of the cores explain.
    fn learn_contention(
        &mut self,
        seen: &Observation,
        conditions: &Conditions,
        interval: &ObservedInterval,
    ) {
        let (Some(host), Some(threads)) = (interval.host, interval.threads) else {
            return;
        };
        let EngineTime { elapsed, spent } = interval.engine;
        let (ran, all) = if seen.computes_alone {
            (spent, elapsed)
        } else {
            (threads.ran, threads.ran + threads.waited)
        };
        let host_share = host / interval.elapsed / conditions.cores;
        self.contention.learn(&EnginePace {
            ran: ran.as_secs_f64(),
            all: all.as_secs_f64(),
            threads: if seen.computes_alone {
                1.0
            } else {
                threads.ran.as_secs_f64() / spent.as_secs_f64().max(f64::MIN_POSITIVE)
            },
            threads_max: interval.threads_max,
            host_share,
            elapsed: interval.elapsed,
            cores: conditions.cores,
        });
    }

    /// The cost of requests outside the engine; zero if the system does not report it.
    fn host_cost(&self) -> RequestCost {
        let guess = if self.host_is_seen {
            RequestCost::GUESS
        } else {
            RequestCost::default()
        };
        self.host.cost().unwrap_or(guess)
    }

    /// Simulates κ again when it is due, at the rate that follows from it.
    fn update_tail(
        &mut self,
        mut learned: Learned,
        conditions: &Conditions,
        interval: &ObservedInterval,
    ) -> Learned {
        self.tail_age += interval.elapsed;
        if self.tail_age < TAIL_SECONDS || conditions.objective.is_none() {
            return learned;
        }
        let model = learned.model(conditions);
        let load = interval.offered / self.rate.max(f64::MIN_POSITIVE);
        let LatencySummary { count, p99, .. } = interval.latency;
        let is_steady = STEADY.contains(&(count as f64 / (WINDOW * interval.offered)));
        if TAIL_LOADS.contains(&load) && is_steady && count >= LATENCIES_MIN {
            let inside = (p99 - interval.overhead.mean).max(0.0);
            let is_cut = interval.overload_share > CUT;
            self.tail.observe(&model, interval.offered, inside, is_cut);
        }
        if let Some(objective) = learned.objective(conditions) {
            let usable = model.capacity(None).rate;
            let seconds = objective.seconds - objective.overhead;
            learned.tail = self.tail.find(&model, usable, seconds);
        }
        self.tail_now = learned.tail;
        self.tail_age = 0.0;
        learned
    }

    /// Moves the published rate toward the computed one.
    fn follow(&mut self, learned: &Learned, conditions: &Conditions, now: &Capacity, elapsed: f64) {
        let before = self.before.replace(*learned);
        self.was_confident |= self.confidence >= CONFIDENT;
        let Some(before) = before.filter(|_| self.was_confident) else {
            self.log_gap = 0.0;
            return;
        };
        let same = before
            .model(conditions)
            .capacity(before.objective(conditions));
        let same = self.tail.capacity(same);
        let step = (same.rate / now.rate).ln();
        if step.is_finite() {
            self.log_gap += step;
        }
        let mut most = (1.0 + CHANGE_A_MINUTE).ln() * elapsed / 60.0;
        if self.confidence < CONFIDENT {
            most *= CHANGE_WHILE_UNSURE;
        }
        self.log_gap -= self.log_gap.clamp(-most, most);
    }

    fn confidence_of(&self, seen: &Observation) -> f64 {
        let batches = seen.samples as f64;
        let curve = batches / (batches + BATCHES_HALF) * (1.0 - seen.fit_error.min(1.0));
        // Without earlier load, the cost on the host is not known.
        if !self.host_is_seen {
            // It will never be known. That is no reason to follow noise.
            return curve;
        }
        curve * (0.5 + 0.5 * self.host.confidence(self.rate))
    }
}

#[cfg(test)]
mod tests;
