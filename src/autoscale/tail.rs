//! κ, the 99th percentile of the latency by its mean: first from a simulation of the queue, then
//! corrected by what is observed.
//!
//! κ is no constant. Where the setup is most of a batch, latencies are alike and κ is about 1.5; where
//! every request costs its own time, as in a large model on a CPU, queues build up by chance and κ goes
//! to 4. The simulation knows the service curve and the sizes of requests; how unlike Poisson the
//! arrivals are, only observation can tell.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::queueing::Model;

/// Where κ is believed to lie (shared with the reference's vectors, which hold for 2).
const TAIL_RANGE: (f64, f64) = (1.8, 4.0);

/// κ before anything is known.
pub const TAIL: f64 = 2.0;

/// Requests of a simulation: 160 of them are beyond the percentile.
const REQUESTS: usize = 16_000;

/// Requests at its beginning that are not counted, since the queue is still empty.
const WARM_UP: usize = 1000;

/// How far observation may be from simulation.
const CORRECTION_RANGE: (f64, f64) = (0.7, 2.0);

/// Weight of a newly observed minute.
const NEWEST: f64 = 0.2;

/// What is learnt of κ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    /// Observed by simulated κ.
    correction: f64,
    /// Spread of the requests' sizes: their standard deviation by their mean.
    pub spread: f64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            correction: 1.0,
            spread: 0.0,
        }
    }
}

impl Tail {
    /// κ at `rate` requests a second.
    pub fn at(&self, model: &Model, rate: f64) -> f64 {
        let (low, high) = TAIL_RANGE;
        (simulated(model, rate, self.spread) * self.correction).clamp(low, high)
    }

    /// At `rate`, the 99th percentile was `ratio` times the mean.
    pub fn observe(&mut self, model: &Model, rate: f64, ratio: f64) {
        let (low, high) = CORRECTION_RANGE;
        let found = (ratio / simulated(model, rate, self.spread)).clamp(low, high);
        self.correction += NEWEST * (found - self.correction);
    }
}

/// κ of Poisson arrivals at `rate`, whose sizes spread by `spread`, by simulation. The same for the
/// same arguments.
fn simulated(model: &Model, rate: f64, spread: f64) -> f64 {
    let service = model.service_at(rate);
    if !(rate > 0.0 && rate < service.rate(model.batch_max.max(1.0))) {
        return TAIL;
    }
    let batch_max = model.batch_max.max(1.0) as usize;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut arrivals = Arrivals {
        random: &mut random,
        rate,
        // A log-normal of mean 1.
        sigma: (1.0 + spread * spread).ln().sqrt(),
        next: 0.0,
    };
    let mut waiting: VecDeque<(f64, f64)> = VecDeque::new();
    let mut latencies = Vec::with_capacity(REQUESTS);
    let mut next = arrivals.draw();
    let mut now = 0.0_f64;
    while latencies.len() < REQUESTS {
        if waiting.is_empty() {
            now = now.max(next.0);
        }
        while next.0 <= now {
            waiting.push_back(next);
            next = arrivals.draw();
        }
        let count = waiting.len().min(batch_max);
        let size: f64 = waiting.iter().take(count).map(|(_, size)| size).sum();
        now += service.batch(size);
        latencies.extend(waiting.drain(..count).map(|(arrival, _)| now - arrival));
    }
    latencies.drain(..WARM_UP);
    let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
    let index = latencies.len() / 100 * 99;
    let (_, high, _) = latencies.select_nth_unstable_by(index, f64::total_cmp);
    *high / mean
}

struct Arrivals<'a> {
    random: &'a mut ChaCha8Rng,
    rate: f64,
    sigma: f64,
    next: f64,
}

impl Arrivals<'_> {
    /// The next arrival and its size.
    fn draw(&mut self) -> (f64, f64) {
        let mut uniform = || 1.0 - self.random.random::<f64>();
        self.next -= uniform().ln() / self.rate;
        if self.sigma == 0.0 {
            return (self.next, 1.0);
        }
        // Box and Muller.
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let size = (self.sigma * normal - self.sigma * self.sigma / 2.0).exp();
        (self.next, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::queueing::{Host, Service};

    fn model(setup_ms: f64, request_ms: f64) -> Model {
        Model {
            service: Service {
                setup: setup_ms / 1e3,
                request: request_ms / 1e3,
            },
            batch_max: 128.0,
            host: Host::FREE,
        }
    }

    #[test]
    fn batches_that_are_mostly_setup_have_a_short_tail() {
        for rate in [500.0, 2000.0, 4000.0] {
            let ratio = simulated(&model(1.5, 0.12), rate, 0.0);
            assert!((1.3..1.8).contains(&ratio), "{ratio} at {rate}");
        }
    }

    #[test]
    fn requests_that_cost_their_own_time_have_a_long_one() {
        let ratio = simulated(&model(0.0, 20.0), 40.0, 0.0);
        assert!((3.0..4.5).contains(&ratio), "{ratio}");
        let spread = simulated(&model(0.0, 20.0), 40.0, 1.0);
        assert!(spread > ratio, "{spread} with requests of many sizes");
    }

    #[test]
    fn observation_corrects_simulation_and_neither_leaves_the_range() {
        let model = model(1.5, 0.12);
        let mut tail = Tail::default();
        assert_eq!(tail.at(&model, 2000.0), 1.8, "below the range");
        for _ in 0..50 {
            tail.observe(&model, 2000.0, 3.0);
        }
        let learnt = tail.at(&model, 2000.0);
        assert!((2.7..3.1).contains(&learnt), "{learnt}");
        for _ in 0..50 {
            tail.observe(&model, 2000.0, 100.0);
        }
        assert!(tail.at(&model, 2000.0) <= 4.0);
        assert_eq!(Tail::default().at(&model, 0.0), TAIL);
    }
}
