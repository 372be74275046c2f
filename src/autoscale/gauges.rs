//! The hints as gauges without labels, so that a scaler needs only the name.

use prometheus::{Gauge, Registry};

use super::snapshot::Snapshot;
use crate::metrics::{gauge_from, int_gauge_from};

/// Gauges of the hints.
#[derive(Debug, Clone)]
pub(super) struct HintGauges {
    demand_replicas: Gauge,
    demand_percent: prometheus::IntGauge,
    utilization: Gauge,
    capacity: Gauge,
    rate_max: Gauge,
    offered: Gauge,
    target_concurrency: Gauge,
    slo: Gauge,
    slo_feasible: prometheus::IntGauge,
    p99: Gauge,
    confidence: Gauge,
    oldest_wait: Gauge,
    setup: Gauge,
    token: Gauge,
    fit_error: Gauge,
    host: Gauge,
}

/// Help texts by metric name without `intentd_`.
const HELP: [(&str, &str); 16] = [
    (
        "autoscaling_demand_replicas",
        "Servers like this one that its load needs. Adds up over replicas; the target is 1.",
    ),
    (
        "autoscaling_demand_percent",
        "The demand in percent of a server, rounded up; the target is 100.",
    ),
    (
        "autoscaling_utilization_ratio",
        "Offered load by the capacity; above 1 when more is asked than can be done in time.",
    ),
    (
        "autoscaling_capacity_requests_per_second",
        "Requests a second that this server answers within the objective.",
    ),
    (
        "autoscaling_max_requests_per_second",
        "Requests a second that this server answers at all.",
    ),
    (
        "autoscaling_offered_requests_per_second",
        "Requests a second that come, refused ones included; smoothed over 15 s.",
    ),
    (
        "autoscaling_target_concurrency",
        "Requests in flight, on average, at the capacity.",
    ),
    (
        "autoscaling_slo_seconds",
        "The objective for the 99th percentile of latencies (--slo); 0 for none.",
    ),
    (
        "autoscaling_slo_feasible",
        "1 when some rate keeps the objective, else 0.",
    ),
    (
        "autoscaling_p99_seconds",
        "99th percentile of the latencies in the last minute; 0 without requests.",
    ),
    (
        "autoscaling_confidence_ratio",
        "How well the capacity is known, from 0 to 1.",
    ),
    (
        "queue_oldest_wait_seconds",
        "How long the oldest waiting text has waited; 0 when none waits.",
    ),
    (
        "calibration_tau0_seconds",
        "What any batch takes, as learnt from batches.",
    ),
    (
        "calibration_alpha_seconds",
        "What a token adds to a batch, as learnt from batches.",
    ),
    (
        "calibration_error_ratio",
        "Mean distance of batches from what was learnt, as a part of what they took.",
    ),
    (
        "calibration_host_seconds",
        "CPU time of a request outside of the engine.",
    ),
];

impl HintGauges {
    /// Registers the gauges.
    pub(super) fn new(registry: &Registry) -> Self {
        let float = |name| gauge_from(registry, &HELP, name);
        let whole = |name| int_gauge_from(registry, &HELP, name);
        Self {
            demand_replicas: float("autoscaling_demand_replicas"),
            demand_percent: whole("autoscaling_demand_percent"),
            utilization: float("autoscaling_utilization_ratio"),
            capacity: float("autoscaling_capacity_requests_per_second"),
            rate_max: float("autoscaling_max_requests_per_second"),
            offered: float("autoscaling_offered_requests_per_second"),
            target_concurrency: float("autoscaling_target_concurrency"),
            slo: float("autoscaling_slo_seconds"),
            slo_feasible: whole("autoscaling_slo_feasible"),
            p99: float("autoscaling_p99_seconds"),
            confidence: float("autoscaling_confidence_ratio"),
            oldest_wait: float("queue_oldest_wait_seconds"),
            setup: float("calibration_tau0_seconds"),
            token: float("calibration_alpha_seconds"),
            fit_error: float("calibration_error_ratio"),
            host: float("calibration_host_seconds"),
        }
    }

    /// Sets all gauges from a snapshot.
    pub(super) fn publish(&self, hints: &Snapshot) {
        let calibration = &hints.calibration;
        self.demand_replicas.set(hints.demand_replicas);
        let percent = i64::try_from(hints.demand_percent);
        self.demand_percent.set(percent.unwrap_or(i64::MAX));
        self.utilization.set(hints.utilization);
        self.capacity.set(hints.capacity_rps);
        self.rate_max.set(hints.max_rps);
        self.offered.set(hints.offered_rps);
        self.target_concurrency.set(hints.target_concurrency);
        self.slo.set(hints.slo_seconds);
        self.slo_feasible.set(i64::from(hints.slo_feasible));
        self.p99.set(hints.p99_seconds);
        self.confidence.set(hints.confidence);
        self.oldest_wait.set(hints.oldest_wait_seconds);
        self.setup.set(calibration.tau0_seconds);
        self.token.set(calibration.alpha_seconds);
        self.fit_error.set(calibration.fit_error_ratio);
        self.host.set(calibration.host_seconds);
    }
}
