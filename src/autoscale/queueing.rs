//! The capacity of one server within an objective, from its service curve.
//!
//! A server that takes everything that waits whenever it is free is a queue with dynamic batching (Inoue,
//! "Queueing analysis of GPU-based inference servers with dynamic batching", Performance Evaluation 2021,
//! arXiv:1912.06322): Poisson arrivals, batches of b requests that take τ0 + a·b. Its mean latency has a closed
//! bound, which is inverted here.

/// Maximum utilization with the largest batches. Near 1, the queue of a server with bounded batches grows without
/// bound. With 0.95, servers whose engine and host share the cores did 0.85 (lists) to 1.1 times what was published
/// (benches/results/2026-12-01-hints).
const UTILIZATION_MAX: f64 = 0.85;

/// If engine and host share the cores, batches stop growing at this multiple of n, where n requests cost as much as the
/// fixed cost of a batch. At 5, the fixed cost is a sixth of all. They grow no further before latency exceeds the
/// objective: new requests wait in sockets, not in the queue (measured: 4 on one machine, 8 on another;
/// benches/results/2026-11-25-autoscale and 2026-12-01-hints).
const SHARED_BATCH: f64 = 5.0;

/// Minimum of λ_slo, as a share of the rate without an objective. Close to an infeasible objective, small errors
/// would otherwise multiply the demand.
pub const CAPACITY_MIN: f64 = 0.05;

/// Steps of a bisection: enough for all digits of an `f64`.
const STEPS: usize = 64;

/// Time of a batch of b requests in seconds: `setup + request · b`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchService {
    /// τ0: seconds per batch.
    pub setup: f64,
    /// a: seconds per request.
    pub request: f64,
}

impl BatchService {
    /// Seconds that a batch of `requests` takes.
    pub fn batch(self, requests: f64) -> f64 {
        self.setup + self.request * requests
    }

    /// Requests per second in consecutive batches of `requests`.
    pub fn rate(self, requests: f64) -> f64 {
        requests / self.batch(requests).max(f64::MIN_POSITIVE)
    }

    /// A server that takes `factor` times as long.
    #[must_use]
    pub fn stretched(self, factor: f64) -> Self {
        Self {
            setup: self.setup * factor,
            request: self.request * factor,
        }
    }

    /// Bound φ on the mean latency in seconds, from arrival to the end of the batch, at `rate` arrivals per second
    /// (Inoue 2021: the smaller of its two upper bounds). Infinite if the queue is unstable.
    pub fn mean_latency(self, rate: f64) -> f64 {
        let Self { setup, request } = self;
        let load = rate * request;
        if load >= 1.0 {
            return f64::INFINITY;
        }
        let by_setup = rate * setup;
        let first = (request + setup) / (2.0 * (1.0 - load))
            * (1.0 + 2.0 * by_setup + (1.0 - by_setup) / (1.0 + load));
        let second =
            1.5 * setup / (1.0 - load) + request / 2.0 * (load + 2.0) / (1.0 - load * load);
        first.min(second)
    }

    /// Mean number of requests in a batch at `rate`: those that arrive while the previous batch runs.
    pub fn mean_batch(self, rate: f64) -> f64 {
        let load = rate * self.request;
        if load >= 1.0 {
            return f64::INFINITY;
        }
        (rate * self.setup / (1.0 - load)).max(1.0)
    }

    /// Mean number of requests that wait for their batch at `rate`.
    pub fn mean_waiting(self, rate: f64) -> f64 {
        let latency = self.mean_latency(rate);
        let service = self.batch(self.mean_batch(rate));
        if latency.is_finite() && service.is_finite() {
            (rate * (latency - service)).max(0.0)
        } else {
            0.0
        }
    }
}

/// The queueing model of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerModel {
    /// The time of its batches without other work.
    pub service: BatchService,
    /// Requests of the largest batch.
    pub batch_max: f64,
    /// Work outside the batches.
    pub host: Host,
}

/// The cost of requests outside the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// CPU seconds per request.
    pub request: f64,
    /// CPU seconds per batch.
    pub batch: f64,
    /// Available cores.
    pub cores: f64,
    /// Whether the engine computes on the same cores, so that they compete.
    pub is_shared: bool,
}

impl Host {
    /// A host without costs.
    pub const FREE: Self = Self {
        request: 0.0,
        batch: 0.0,
        cores: 1.0,
        is_shared: false,
    };
}

/// A latency objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyObjective {
    /// Seconds within which 99 of 100 requests should be answered.
    pub seconds: f64,
    /// The part of them spent outside queue and engine.
    pub overhead: f64,
    /// κ: 99th percentile of the latency divided by the bound on its mean.
    pub tail: f64,
}

/// The capacity of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// λ_slo: the highest rate in requests per second that keeps the objective. If no rate keeps it, the rate
    /// without an objective. Always positive.
    pub rate: f64,
    /// Whether any rate keeps the objective.
    pub feasible: bool,
    /// The highest rate regardless of objectives.
    pub rate_max: f64,
}

impl ServerModel {
    /// The service curve while `rate` requests per second take their share of the cores.
    pub fn service_at(&self, rate: f64) -> BatchService {
        let Host {
            request,
            batch,
            cores,
            is_shared,
        } = self.host;
        if !is_shared {
            return self.service;
        }
        let service = BatchService {
            setup: self.service.setup + batch / cores,
            ..self.service
        };
        let left = 1.0 - rate * request / cores;
        service.stretched(1.0 / left.max(1e-6))
    }

    /// Requests per batch at full load.
    pub(super) fn batch(&self) -> f64 {
        let Host {
            request,
            batch,
            cores,
            is_shared,
        } = self.host;
        if !is_shared {
            return self.batch_max;
        }
        let by_batch = self.service.setup + batch / cores;
        let by_request = self.service.request + request / cores;
        let grown = SHARED_BATCH * by_batch / by_request.max(f64::MIN_POSITIVE);
        grown.clamp(1.0, self.batch_max.max(1.0))
    }

    /// Whether the server sustains `rate` with `share` of its resources.
    fn carries(&self, rate: f64, share: f64) -> bool {
        let batch = self.batch();
        let host = rate * (self.host.request + self.host.batch / batch) / self.host.cores;
        let engine = rate / self.service.rate(batch);
        if self.host.is_shared {
            host + engine <= share
        } else {
            host <= share && engine <= share
        }
    }

    /// The capacity, with or without an objective.
    pub fn capacity(&self, objective: Option<LatencyObjective>) -> Capacity {
        let bound = 1.0 / self.service.request.max(1e-12);
        let rate_max = highest(bound, |rate| self.carries(rate, 1.0));
        let usable = highest(bound, |rate| self.carries(rate, UTILIZATION_MAX));
        let Some(objective) = objective else {
            return Capacity {
                rate: usable,
                feasible: true,
                rate_max,
            };
        };
        let mean_max = (objective.seconds - objective.overhead) / objective.tail;
        let keeps = |rate: f64| self.service_at(rate).mean_latency(rate) <= mean_max;
        if !keeps(0.0) {
            return Capacity {
                rate: usable,
                feasible: false,
                rate_max,
            };
        }
        Capacity {
            rate: highest(usable, keeps).max(CAPACITY_MIN * usable),
            feasible: true,
            rate_max,
        }
    }
}

/// The largest value up to `bound` for which `holds` is true. It must hold for 0 and for all smaller values.
fn highest(bound: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(bound) {
        return bound;
    }
    let (mut low, mut high) = (0.0, bound);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        let error = (found - expected).abs() / expected.abs().max(1e-300);
        assert!(error < 5e-5, "found {found}, expected {expected}");
    }

    fn service(setup_ms: f64, request_ms: f64) -> BatchService {
        BatchService {
            setup: setup_ms / 1e3,
            request: request_ms / 1e3,
        }
    }

    fn model(service: BatchService, batch_max: f64) -> ServerModel {
        ServerModel {
            service,
            batch_max,
            host: Host::FREE,
        }
    }

    fn capacity(model: ServerModel, slo_ms: f64) -> Capacity {
        model.capacity(Some(LatencyObjective {
            seconds: slo_ms / 1e3,
            overhead: 0.0,
            tail: 2.0,
        }))
    }

    #[test]
    fn the_latency_bound_matches_values_computed_by_hand() {
        let latency_ms = |service: BatchService, rate| service.mean_latency(rate) * 1e3;
        let fast = service(1.5, 0.12);
        for (rate, expected) in [
            (10.0, 1.6332),
            (500.0, 2.3575),
            (1000.0, 2.6859),
            (2000.0, 3.1031),
            (4000.0, 4.5203),
        ] {
            close(latency_ms(fast, rate), expected);
        }
        let slow = service(3.0, 0.3);
        for (rate, expected) in [
            (10.0, 3.3548),
            (500.0, 5.6240),
            (1000.0, 6.8077),
            (2000.0, 11.8594),
        ] {
            close(latency_ms(slow, rate), expected);
        }
        let wide = service(5.0, 0.05);
        for (rate, expected) in [(10.0, 5.1776), (500.0, 7.7430), (4000.0, 9.4323)] {
            close(latency_ms(wide, rate), expected);
        }
    }

    #[test]
    fn the_capacity_matches_values_computed_by_hand() {
        let fast = model(service(1.5, 0.12), 32.0);
        close(capacity(fast, 10.0).rate_max, 5992.5);
        close(capacity(fast, 10.0).rate, 4417.98);
        close(capacity(fast, 20.0).rate, 5093.63);
        let slow = model(service(3.0, 0.3), 32.0);
        close(capacity(slow, 10.0).rate_max, 2539.7);
        close(capacity(slow, 10.0).rate, 267.33);
        close(capacity(slow, 20.0).rate, 1750.55);
        close(capacity(slow, 50.0).rate, 2158.73);
        let wide = model(service(5.0, 0.05), 128.0);
        close(capacity(wide, 10.0).rate_max, 11228.1);
        let infeasible = capacity(wide, 10.0);
        assert!(!infeasible.feasible);
        close(infeasible.rate, 0.85 * 11228.1);
        close(capacity(wide, 20.0).rate, 4909.86);
        close(capacity(wide, 50.0).rate, 9543.86);
    }

    #[test]
    fn the_latency_grows_with_the_rate() {
        for (setup, request) in [(1.5, 0.12), (3.0, 0.3), (5.0, 0.05), (0.0, 20.0)] {
            let service = service(setup, request);
            let end = 0.999 / service.request;
            let mut before = 0.0;
            for step in 0..2000 {
                let latency = service.mean_latency(end * f64::from(step) / 2000.0);
                assert!(latency >= before, "{service:?} at step {step}");
                before = latency;
            }
        }
    }

    #[test]
    fn shared_cores_leave_less_for_batches() {
        let alone = model(service(0.0, 1.0), 100.0);
        let host = Host {
            request: 1e-3,
            batch: 0.0,
            cores: 1.0,
            is_shared: true,
        };
        let shared = ServerModel { host, ..alone };
        close(alone.capacity(None).rate_max, 1000.0);
        close(shared.capacity(None).rate_max, 500.0);
        close(shared.capacity(None).rate, 425.0);
        let waking = ServerModel {
            host: Host {
                batch: 10e-3,
                ..host
            },
            ..alone
        };
        // Batches of 25: 10 ms per batch and 2 ms per request.
        close(waking.capacity(None).rate_max, 1.0 / 2.4e-3);
        let latency = |model: &ServerModel| model.service_at(200.0).mean_latency(200.0);
        assert!(latency(&waking) > latency(&shared));
        let beside = ServerModel {
            host: Host {
                is_shared: false,
                ..host
            },
            ..alone
        };
        close(beside.capacity(None).rate_max, 1000.0);
        close(
            ServerModel {
                host: Host {
                    request: 4e-3,
                    is_shared: false,
                    cores: 2.0,
                    ..host
                },
                ..alone
            }
            .capacity(None)
            .rate_max,
            500.0,
        );
    }

    #[test]
    fn an_unknown_server_has_a_positive_capacity() {
        let unknown = model(service(0.0, 0.0), 1.0);
        let capacity = capacity(unknown, 100.0);
        assert!(capacity.rate.is_finite() && capacity.rate > 0.0);
    }
}
