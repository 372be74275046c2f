//! κ, the 99th percentile of the latency divided by φ: simulated first, then corrected by observation.
//!
//! κ is not constant. If setup dominates a batch, latencies are similar and κ is about 1.4. If every request costs its
//! own time, as with a large model on a CPU, queues build up at random and κ is near 4; with requests of very different
//! sizes, of which φ knows only the mean, it is 7. The simulation knows the service curve, the sizes of requests and how
//! much their rate varies from second to second. What else is different shows in observation.

use std::collections::VecDeque;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

pub use self::simulated::Variation;
use self::simulated::{BURSTINESS_MIN, SimulatedArrivals, SimulatedRequest};
use super::queueing::{Capacity, ServerModel};

/// κ before the first simulation.
pub const TAIL: f64 = 2.0;

/// Requests in a simulation; 160 of them are above the percentile.
const REQUESTS: usize = 16_000;

/// If the rate varies from second to second, so many seconds follow each other, with the quantiles of its distribution in
/// mixed order: fewer for a server that answers so many requests that there would be more than [`REQUESTS_BURSTY`]. Every
/// rate sees the same seconds, each as often.
const BURSTY_SECONDS: (usize, usize) = (4, 24);

/// Requests that bursty seconds should have together.
const REQUESTS_BURSTY: f64 = 100_000.0;

/// Requests at its start that are not counted, because the queue is still empty.
const WARM_UP: usize = 1000;

/// Range of the ratio of observation to simulation.
const CORRECTION_RANGE: (f64, f64) = (0.7, 2.0);

/// Weight of a newly observed minute.
const NEWEST: f64 = 0.2;

/// Share of the cores that the host takes at most, in a burst.
const HOST_SHARE_MAX: f64 = 0.9;

/// Steps of a search for the rate, each of which halves the range.
const SEARCH_STEPS: u32 = 6;

/// A percentile that misses the objective by this factor calls for a search.
const FAR: f64 = 1.5;

/// Distance of the rates around the last one that are simulated to find the next one.
const STEP: f64 = 1.1;

/// How often the range between them is halved.
const STEP_HALVES: u32 = 3;

/// Lowest rate of the search, as a share of the highest.
const LOWEST: f64 = 0.02;

/// The learned correction of κ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    /// Observed κ divided by simulated κ.
    correction: f64,
    /// The variation of requests.
    pub variation: Variation,
    /// The last rate that was found, in requests per second.
    rate: Option<f64>,
    /// Whether it keeps the objective, if the rate varies from second to second.
    keeps_in_bursts: Option<bool>,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            correction: 1.0,
            variation: Variation::default(),
            rate: None,
            keeps_in_bursts: None,
        }
    }
}

impl Tail {
    /// κ at the highest rate up to `usable` at which the 99th percentile is at most `seconds`.
    pub fn find(&mut self, model: &ServerModel, usable: f64, seconds: f64) -> f64 {
        let p99 = |rate: f64| self.p99(model, rate);
        let near = self.rate.map(|rate| rate.min(usable));
        let rate = near
            .and_then(|rate| step(p99, rate, usable, seconds))
            .unwrap_or_else(|| search(p99, usable, seconds));
        self.rate = Some(rate);
        let is_bursty = self.variation.rate > BURSTINESS_MIN;
        self.keeps_in_bursts = is_bursty.then(|| self.p99(model, rate) <= FAR * seconds);
        let mean = model.service_at(rate).mean_latency(rate);
        let tail = self.p99(model, rate) / mean;
        if tail.is_finite() { tail } else { TAIL }
    }

    /// A capacity that was computed with κ. In bursts the percentile does not follow from the mean latency, which is nearly
    /// the same at all rates that hold: there it is the rate that was found.
    pub fn capacity(&self, computed: Capacity) -> Capacity {
        match (self.keeps_in_bursts, self.rate) {
            (Some(feasible), Some(rate)) => Capacity {
                rate,
                feasible,
                ..computed
            },
            _ => computed,
        }
    }

    /// Learns that at `rate`, the 99th percentile of the time in queue and engine was `p99` seconds. If it is cut, because
    /// requests that would have taken longer were refused, it says nothing below what is simulated.
    pub fn observe(&mut self, model: &ServerModel, rate: f64, p99: f64, is_cut: bool) {
        let Some(simulated) = simulate(model, rate, self.variation) else {
            return;
        };
        let (low, high) = CORRECTION_RANGE;
        let low = if is_cut { 1.0 } else { low };
        let found = (p99 / simulated).clamp(low, high);
        self.correction += NEWEST * (found - self.correction);
    }

    /// The 99th percentile of the latency at `rate` in seconds; infinite if the queue is unstable.
    pub fn p99(&self, model: &ServerModel, rate: f64) -> f64 {
        let simulated = simulate(model, rate, self.variation);
        simulated.map_or(f64::INFINITY, |p99| p99 * self.correction)
    }
}

/// Searches the highest rate up to `usable` at which `p99` is at most `seconds`.
fn search(p99: impl Fn(f64) -> f64, usable: f64, seconds: f64) -> f64 {
    if p99(usable) <= seconds {
        return usable;
    }
    let (mut low, mut high) = (LOWEST * usable, usable);
    for _ in 0..SEARCH_STEPS {
        let middle = (low * high).sqrt();
        if p99(middle) <= seconds {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// A step from `rate` toward that rate: halves between two rates, then a line, on a logarithmic scale. `None` if it is far.
fn step(p99: impl Fn(f64) -> f64, rate: f64, usable: f64, seconds: f64) -> Option<f64> {
    let (low, high) = (rate / STEP, (rate * STEP).min(usable));
    let (at_low, at_high) = (p99(low), p99(high));
    if at_low > FAR * seconds || FAR * at_high < seconds && high < usable {
        return None;
    }
    if at_low >= seconds {
        return Some(low.max(LOWEST * usable));
    }
    if at_high <= seconds {
        return Some(high.max(LOWEST * usable));
    }
    // In bursts the percentile rises steeply somewhere between them, where a line from end to end misses by far.
    let (mut below, mut above) = ((low, at_low), (high, at_high));
    for _ in 0..STEP_HALVES {
        let rate = (below.0 * above.0).sqrt();
        match p99(rate) {
            percentile if percentile <= seconds => below = (rate, percentile),
            percentile => above = (rate, percentile),
        }
    }
    let share = (seconds / below.1).ln() / (above.1 / below.1).ln();
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let next = below.0 * (above.0 / below.0).powf(share);
    Some(next.max(LOWEST * usable))
}

/// The 99th percentile of the latency at `rate` in seconds, by simulation; `None` if the queue is unstable. Deterministic.
fn simulate(model: &ServerModel, rate: f64, variation: Variation) -> Option<f64> {
    let service = model.service_at(rate);
    let batch_max = model.batch_max.max(1.0);
    // On shared cores a mean, not a limit.
    let grown = model.batch().max(1.0);
    let mut room = 0.0;
    if !(rate > 0.0 && rate < service.rate(grown)) {
        return None;
    }
    // Beyond that, a burst takes the cores for the host, and requests wait in sockets.
    let highest = HOST_SHARE_MAX * model.host.cores / model.host.request.max(f64::MIN_POSITIVE);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let seconds = bursty_seconds(model);
    let requests = if variation.rate > BURSTINESS_MIN {
        let round = (seconds as f64 * rate).max(1.0);
        (round * (REQUESTS as f64 / round).ceil()) as usize
    } else {
        REQUESTS
    };
    let mut arrivals = SimulatedArrivals::new(&mut random, rate, variation, seconds);
    let mut waiting: VecDeque<SimulatedRequest> = VecDeque::new();
    let mut latencies = Vec::with_capacity(requests);
    let mut next = arrivals.draw();
    let mut now = 0.0_f64;
    while latencies.len() < requests {
        if waiting.is_empty() {
            now = now.max(next.arrival);
        }
        while next.arrival <= now {
            waiting.push_back(next);
            next = arrivals.draw();
        }
        if waiting.len() > requests {
            return None;
        }
        let limit = (grown + room).min(batch_max);
        let (count, size) = fill(&waiting, limit);
        room = if waiting.len() > count {
            (limit - size).clamp(0.0, 1.0)
        } else {
            0.0
        };
        // Where engine and host share the cores, a burst takes more of them for the host as well.
        let momentary = (rate * arrivals.factor()).min(highest);
        now += model.service_at(momentary).batch(size);
        latencies.extend(waiting.drain(..count).map(|done| now - done.arrival));
    }
    latencies.drain(..WARM_UP);
    let index = latencies.len() / 100 * 99;
    let (_, p99, _) = latencies.select_nth_unstable_by(index, f64::total_cmp);
    Some(*p99)
}

/// The number and the size of the requests in a batch of at most `limit`, filled as the server does: the first that does not
/// fit ends it.
fn fill(waiting: &VecDeque<SimulatedRequest>, limit: f64) -> (usize, f64) {
    let (mut count, mut size) = (0, 0.0);
    while let Some(next) = waiting.get(count)
        && (count == 0 || size + next.size <= limit)
    {
        count += 1;
        size += next.size;
    }
    (count, size)
}

/// The number of seconds with rates of their own: the same for all rates that the server can be asked for.
fn bursty_seconds(model: &ServerModel) -> usize {
    let highest = model.service.rate(model.batch_max.max(1.0));
    let (least, most) = BURSTY_SECONDS;
    ((REQUESTS_BURSTY / highest) as usize).clamp(least, most)
}

mod simulated;
#[cfg(test)]
mod tests;
