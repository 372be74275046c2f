//! κ, the 99th percentile of the latency divided by its mean: simulated first, then corrected by observation.
//!
//! κ is not constant. If setup dominates a batch, latencies are similar and κ is about 1.5. If every request costs
//! its own time, as with a large model on a CPU, queues build up at random and κ approaches 4. The simulation
//! knows the service curve and the request sizes. Only observation shows how far arrivals are from Poisson.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::queueing::ServerModel;

/// Plausible range of κ. The reference's test vectors assume 2.
const TAIL_RANGE: (f64, f64) = (1.8, 4.0);

/// κ before the first simulation.
pub const TAIL: f64 = 2.0;

/// Requests in a simulation; 160 of them are above the percentile.
const REQUESTS: usize = 16_000;

/// Requests at its start that are not counted, because the queue is still empty.
const WARM_UP: usize = 1000;

/// Range of the ratio of observation to simulation.
const CORRECTION_RANGE: (f64, f64) = (0.7, 2.0);

/// Weight of a newly observed minute.
const NEWEST: f64 = 0.2;

/// The learned correction of κ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    /// Observed κ divided by simulated κ.
    correction: f64,
    /// Coefficient of variation of request sizes: standard deviation divided by mean.
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
    /// κ at `rate` requests per second.
    pub fn at(&self, model: &ServerModel, rate: f64) -> f64 {
        let (low, high) = TAIL_RANGE;
        (simulated(model, rate, self.spread) * self.correction).clamp(low, high)
    }

    /// Learns that at `rate`, the 99th percentile was `ratio` times the mean.
    pub fn observe(&mut self, model: &ServerModel, rate: f64, ratio: f64) {
        let (low, high) = CORRECTION_RANGE;
        let found = (ratio / simulated(model, rate, self.spread)).clamp(low, high);
        self.correction += NEWEST * (found - self.correction);
    }
}

/// Simulates κ for Poisson arrivals at `rate`, with sizes that vary by `spread`. Deterministic.
fn simulated(model: &ServerModel, rate: f64, spread: f64) -> f64 {
    let service = model.service_at(rate);
    if !(rate > 0.0 && rate < service.rate(model.batch_max.max(1.0))) {
        return TAIL;
    }
    let batch_max = model.batch_max.max(1.0) as usize;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut arrivals = SimulatedArrivals {
        random: &mut random,
        rate,
        // Log-normal with mean 1.
        sigma: (1.0 + spread * spread).ln().sqrt(),
        next: 0.0,
    };
    let mut waiting: VecDeque<SimulatedRequest> = VecDeque::new();
    let mut latencies = Vec::with_capacity(REQUESTS);
    let mut next = arrivals.draw();
    let mut now = 0.0_f64;
    while latencies.len() < REQUESTS {
        if waiting.is_empty() {
            now = now.max(next.arrival);
        }
        while next.arrival <= now {
            waiting.push_back(next);
            next = arrivals.draw();
        }
        let count = waiting.len().min(batch_max);
        let size: f64 = waiting.iter().take(count).map(|next| next.size).sum();
        now += service.batch(size);
        latencies.extend(waiting.drain(..count).map(|done| now - done.arrival));
    }
    latencies.drain(..WARM_UP);
    let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
    let index = latencies.len() / 100 * 99;
    let (_, high, _) = latencies.select_nth_unstable_by(index, f64::total_cmp);
    *high / mean
}

/// A request of a simulation.
#[derive(Debug, Clone, Copy)]
struct SimulatedRequest {
    /// When it arrives, in seconds.
    arrival: f64,
    /// Its size; 1 on average.
    size: f64,
}

/// Poisson arrivals of requests whose sizes are log-normal.
struct SimulatedArrivals<'a> {
    random: &'a mut ChaCha8Rng,
    rate: f64,
    sigma: f64,
    next: f64,
}

impl SimulatedArrivals<'_> {
    fn draw(&mut self) -> SimulatedRequest {
        let mut uniform = || 1.0 - self.random.random::<f64>();
        self.next -= uniform().ln() / self.rate;
        if self.sigma == 0.0 {
            return SimulatedRequest {
                arrival: self.next,
                size: 1.0,
            };
        }
        // Box–Muller transform.
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let size = (self.sigma * normal - self.sigma * self.sigma / 2.0).exp();
        SimulatedRequest {
            arrival: self.next,
            size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::queueing::{BatchService, Host};

    fn model(setup_ms: f64, request_ms: f64) -> ServerModel {
        ServerModel {
            service: BatchService {
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
    fn requests_that_cost_their_own_time_have_a_long_tail() {
        let ratio = simulated(&model(0.0, 20.0), 40.0, 0.0);
        assert!((3.0..4.5).contains(&ratio), "{ratio}");
        let spread = simulated(&model(0.0, 20.0), 40.0, 1.0);
        assert!(spread > ratio, "{spread} with requests of many sizes");
    }

    #[test]
    fn observation_corrects_the_simulation_within_the_range() {
        let model = model(1.5, 0.12);
        let mut tail = Tail::default();
        assert_eq!(tail.at(&model, 2000.0), 1.8, "below the range");
        for _ in 0..50 {
            tail.observe(&model, 2000.0, 3.0);
        }
        let learned = tail.at(&model, 2000.0);
        assert!((2.7..3.1).contains(&learned), "{learned}");
        for _ in 0..50 {
            tail.observe(&model, 2000.0, 100.0);
        }
        assert!(tail.at(&model, 2000.0) <= 4.0);
        assert_eq!(Tail::default().at(&model, 0.0), TAIL);
    }
}
