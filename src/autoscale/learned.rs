//! What a server learns while serving, in addition to its service curve.
//!
//! The cost of requests is learned only while the objective is kept: during overload, it is that of refusals.

use super::queueing::{BatchService, Host, LatencyObjective, ServerModel};
use crate::serving::PROMISE;

/// Steps of batch sharing; each has its own mean cost.
const STEPS: usize = 20;

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// Half-life of the weight of a cost, in seconds.
const HALF_LIFE: f64 = 120.0;

/// Minimum weight of a cost, however old. At low load, the cost at high load is known only from the past.
const WEIGHT_MIN: f64 = 0.05;

/// Requests that an interval needs, so that their cost stands out from everything else.
const REQUESTS_MIN: f64 = 25.0;

/// Minimum range of sharing that is required to extrapolate.
const SPREAD_MIN: f64 = 0.05;

/// A request costs at least this share of the lowest observed cost, whatever the extrapolation.
const COST_MIN: f64 = 0.6;

/// How far costs are extrapolated, as a share of the observed range. Cautious: a server that overestimates its
/// capacity misses its objective, while an underestimate is corrected once there is more load.
const EXTRAPOLATION: f64 = 0.5;

/// Share of the capacity that must have been observed as load, so that the cost at full load is known.
const OBSERVED: f64 = 0.5;

/// Intervals after which it is half known. Of two seconds each: the first seconds of a load are not typical of it.
const OBSERVED_HALF: f64 = 5.0;

/// Factor by which the highest observed rate decays per interval.
const RATE_KEPT: f64 = 0.995;

/// CPU time of a request outside the engine, by the sharing of its batch.
///
/// A request alone in its batch wakes threads and is read and answered separately. If a hundred share a batch,
/// one running thread reads and answers many at once. Hence there is a cost per request and a cost per batch.
/// Both come from a line over the sharing, `1 - 1/b` for b requests per batch.
#[derive(Debug, Clone, Copy)]
pub struct HostCost {
    by_sharing: [Option<Cost>; STEPS],
    /// CPU seconds per second without requests.
    idle: f64,
    now: f64,
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    sharing: f64,
    rate: f64,
    at: f64,
    /// Intervals in which it was observed.
    seen: u32,
}

/// The cost of requests outside the engine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RequestCost {
    /// CPU seconds per request.
    pub request: f64,
    /// CPU seconds per batch.
    pub batch: f64,
}

impl RequestCost {
    /// Assumed until the first load. Cautious, since an underestimated cost misses the objective: on a server's
    /// cores a request takes 30 to 90 µs (benches/results).
    pub const GUESS: Self = Self {
        request: 100e-6,
        batch: 0.0,
    };
}

impl Default for HostCost {
    fn default() -> Self {
        Self::new()
    }
}

impl HostCost {
    /// An unknown cost.
    pub fn new() -> Self {
        Self {
            by_sharing: [None; STEPS],
            idle: 0.0,
            now: 0.0,
        }
    }

    /// Learns that in `elapsed` seconds, `requests` in `batches` took `cpu` seconds of CPU time.
    pub fn learn(&mut self, requests: f64, batches: f64, cpu: f64, elapsed: f64) {
        self.now += elapsed;
        if requests == 0.0 {
            self.idle += NEWEST * (cpu / elapsed - self.idle);
        }
        if requests < REQUESTS_MIN {
            return;
        }
        let seconds = (cpu - self.idle * elapsed).max(0.0) / requests;
        let sharing = 1.0 - (batches / requests).clamp(0.0, 1.0);
        let step = ((sharing * STEPS as f64) as usize).min(STEPS - 1);
        let cost = &mut self.by_sharing[step];
        let before = cost.unwrap_or(Cost {
            seconds,
            sharing,
            rate: 0.0,
            at: self.now,
            seen: 0,
        });
        *cost = Some(Cost {
            seconds: before.seconds + NEWEST * (seconds - before.seconds),
            sharing: before.sharing + NEWEST * (sharing - before.sharing),
            rate: (requests / elapsed).max(RATE_KEPT * before.rate),
            at: self.now,
            seen: before.seen.saturating_add(1),
        });
    }

    fn known(&self) -> impl Iterator<Item = (Cost, f64)> {
        let known = || self.by_sharing.iter().flatten();
        let newest = known().map(|cost| cost.at).fold(0.0, f64::max);
        let weight = move |cost: &Cost| ((cost.at - newest) / HALF_LIFE).exp2().max(WEIGHT_MIN);
        known().map(move |cost| (*cost, weight(cost)))
    }

    /// How well the cost at `rate` is known, from 0 to 1. Depends on the highest recent rate at which it was
    /// observed, and how often.
    pub fn confidence(&self, rate: f64) -> f64 {
        let known = self.known();
        let Some((cost, _)) = known.max_by(|(a, _), (b, _)| a.rate.total_cmp(&b.rate)) else {
            return 0.0;
        };
        let seen = f64::from(cost.seen);
        let load = cost.rate / (OBSERVED * rate).max(f64::MIN_POSITIVE);
        load.min(1.0) * seen / (seen + OBSERVED_HALF)
    }

    /// The cost of requests: weighted least squares over the sharing, extrapolated a little.
    pub fn cost(&self) -> Option<RequestCost> {
        let mut sums = [0.0_f64; 5];
        let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
        let mut least = f64::INFINITY;
        for (cost, weight) in self.known() {
            let (x, s) = (cost.sharing, cost.seconds);
            for (sum, value) in sums.iter_mut().zip([1.0, x, x * x, s, x * s]) {
                *sum += weight * value;
            }
            (first, last) = (first.min(x), last.max(x));
            least = least.min(s);
        }
        let [w, x, xx, s, xs] = sums;
        if w <= 0.0 {
            return None;
        }
        let (mean_x, mean_s) = (x / w, s / w);
        let variance = xx / w - mean_x * mean_x;
        let slope = if last - first > SPREAD_MIN && variance > 0.0 {
            ((xs / w - mean_x * mean_s) / variance).min(0.0)
        } else {
            0.0
        };
        let end = (last + EXTRAPOLATION * (last - first)).min(1.0);
        let request = (mean_s + slope * (end - mean_x)).max(COST_MIN * least);
        let batch = (mean_s - request) / (1.0 - mean_x).max(1e-3);
        Some(RequestCost {
            request,
            batch: batch.max(0.0),
        })
    }
}

/// The learned values from which the capacity is computed, together with the [`Conditions`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// τ0 in seconds.
    pub setup: f64,
    /// α in seconds per token.
    pub token: f64,
    /// Tokens of the largest batch, which depend on its time.
    pub batch_tokens: f64,
    /// See [`Contention`](super::contention::Contention).
    pub contention: f64,
    /// The cost of requests outside the engine.
    pub host: RequestCost,
    /// CPU seconds that a byte of a large body adds to it.
    pub byte: f64,
    /// 99th percentile of a request's time outside queue and engine, in seconds.
    pub overhead: f64,
    /// κ.
    pub tail: f64,
}

/// The conditions for the capacity: the mean request, the machine and the objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Tokens of the mean request.
    pub request_tokens: f64,
    /// Texts of the mean request.
    pub request_texts: f64,
    /// Bytes of large bodies per request.
    pub request_bytes: f64,
    /// Texts of the largest batch.
    pub batch_texts: f64,
    /// Available cores.
    pub cores: f64,
    /// Whether the engine computes on them.
    pub shares_cores: bool,
    /// The objective in seconds, if any.
    pub objective: Option<f64>,
}

impl Learned {
    /// The queueing model of the server.
    pub fn model(&self, conditions: &Conditions) -> ServerModel {
        let by_tokens = self.batch_tokens / conditions.request_tokens;
        let requests = by_tokens.min(conditions.batch_texts / conditions.request_texts);
        let service = BatchService {
            // A list larger than a batch takes several batches.
            setup: self.setup * (1.0 / requests).ceil().max(1.0),
            request: self.token * conditions.request_tokens,
        };
        ServerModel {
            service: service.stretched(self.contention),
            batch_max: requests.max(1.0),
            host: Host {
                request: self.host.request + self.byte * conditions.request_bytes,
                batch: self.host.batch,
                cores: conditions.cores,
                is_shared: conditions.shares_cores,
            },
        }
    }

    /// The latency objective. Admission refuses what would take longer than it promises, so that promise is the
    /// limit.
    pub fn objective(&self, conditions: &Conditions) -> Option<LatencyObjective> {
        let promised = conditions.objective.map(|seconds| PROMISE * seconds);
        promised.map(|seconds| LatencyObjective {
            seconds,
            overhead: self.overhead.min(seconds),
            tail: self.tail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learns 20 µs per request and 20 µs per batch, with `requests` per batch.
    fn learn_at(host: &mut HostCost, requests: f64, seconds: u32) {
        for _ in 0..seconds {
            let batches = 1000.0 / requests;
            host.learn(1000.0, batches, 0.02 + 20e-6 * batches + 0.001, 1.0);
        }
    }

    #[test]
    fn costs_per_request_and_per_batch_are_separated() {
        let mut host = HostCost::new();
        assert_eq!(host.cost(), None);
        for _ in 0..50 {
            host.learn(0.0, 0.0, 0.001, 1.0);
        }
        learn_at(&mut host, 1.25, 30);
        let flat = host.cost().unwrap();
        assert!(
            (flat.request - 36e-6).abs() < 1e-6,
            "a single load says no more: {flat:?}"
        );
        learn_at(&mut host, 2.0, 30);
        learn_at(&mut host, 10.0, 30);
        let RequestCost { request, batch } = host.cost().unwrap();
        assert!((request - 20e-6).abs() < 1e-6 && (batch - 20e-6).abs() < 1e-6);
        host.learn(1.0, 1.0, 1.0, 1.0);
        assert!(
            host.cost().unwrap().request < 21e-6,
            "a single request is ignored"
        );
        assert!(host.confidence(2000.0) > 0.8);
        assert!(host.confidence(20_000.0) < 0.1);
    }

    #[test]
    fn costs_are_extrapolated_only_a_little() {
        let mut host = HostCost::new();
        learn_at(&mut host, 1.0 / 0.9, 30);
        learn_at(&mut host, 1.0 / 0.7, 30);
        let RequestCost { request, .. } = host.cost().unwrap();
        // Observed from 0.1 to 0.3.
        let at_the_end = 20e-6 + 0.6 * 20e-6;
        assert!((request - at_the_end).abs() < 1e-6, "{request}");
    }

    #[test]
    fn an_extrapolated_cost_stays_positive() {
        let mut host = HostCost::new();
        for (batches, cost) in [(900.0, 100e-6), (600.0, 20e-6)] {
            for _ in 0..30 {
                host.learn(1000.0, batches, 1000.0 * cost, 1.0);
            }
        }
        let RequestCost { request, batch } = host.cost().unwrap();
        assert!(
            (11.9e-6..12.1e-6).contains(&request) && batch > 0.0,
            "{request} {batch}"
        );
    }
}
