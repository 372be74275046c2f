//! The published hints, as served at `/autoscaling`.

use serde::Serialize;

use super::recommend::Recommended;
use super::settings::HintSettings;

/// The version of the JSON. It changes if a key changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 1;

/// The hints at one moment. Every number is finite. Rates are in mean requests per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The name of the model.
    pub model: String,
    /// The replica, by host name.
    pub pod: String,
    /// Whether the server is ready: 1 or 0.
    pub ready: u8,
    /// The number of replicas that this server's load needs. Additive over replicas; the target is 1.
    pub demand_replicas: f64,
    /// The same in percent, rounded up; the target is 100.
    pub demand_percent: u64,
    /// Offered load divided by capacity; above 1 during overload.
    pub utilization: f64,
    /// Offered requests per second, including refused ones.
    pub offered_rps: f64,
    /// Answered requests per second.
    pub accepted_rps: f64,
    /// Requests per second that are refused because of the load or the server's state.
    pub refused_rps: f64,
    /// Change of `offered_rps` per second.
    pub offered_slope: f64,
    /// λ_slo: requests per second that keep the objective; 0 without a model.
    pub capacity_rps: f64,
    /// The highest rate regardless of the objective.
    pub max_rps: f64,
    /// Target share of the capacity.
    pub target_utilization: f64,
    /// L*: mean number of requests in flight at `capacity_rps`.
    pub target_concurrency: f64,
    /// Requests admitted and not yet answered.
    pub in_flight: u64,
    /// Texts that wait for the engine.
    pub queue_depth: u64,
    /// Kafka records assigned to this server that it has not read yet.
    pub backlog: u64,
    /// Waiting time of the oldest text.
    pub oldest_wait_seconds: f64,
    /// The objective; 0 for none.
    pub slo_seconds: f64,
    /// Whether any rate keeps it: 1 or 0.
    pub slo_feasible: u8,
    /// 99th percentile of the latency in the last minute, from the complete request to its answer; 0 without
    /// requests.
    pub p99_seconds: f64,
    /// Tokens of the mean request.
    pub request_tokens: f64,
    /// How well the capacity is known, from 0 to 1.
    pub confidence: f64,
    /// Time from the start of this server until it was ready.
    pub startup_seconds: f64,
    /// The values that the capacity follows from.
    pub calibration: Calibration,
    /// Recommended settings for scalers.
    pub recommended: Recommended,
    /// Why the demand is what it is: sentences with numbers, for people.
    pub explanation: Vec<String>,
}

/// The values that the capacity follows from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Calibration {
    /// τ0: time per batch.
    pub tau0_seconds: f64,
    /// α: time per token.
    pub alpha_seconds: f64,
    /// Mean relative distance of batches from τ0 + α·n.
    pub fit_error_ratio: f64,
    /// Measured batches.
    pub samples: u64,
    /// CPU time per request outside the engine.
    pub host_seconds: f64,
    /// Additional CPU time per batch outside the engine.
    pub host_batch_seconds: f64,
    /// 99th percentile of a request's time outside queue and engine.
    pub overhead_seconds: f64,
    /// Factor by which other processes on the same cores, or the CPU limit, prolong batches; 1 without.
    pub contention_ratio: f64,
    /// κ: 99th percentile of the latency divided by φ, the bound on its mean.
    pub kappa: f64,
    /// Requests of the largest batch.
    pub batch_max: f64,
}

impl Snapshot {
    /// The snapshot of a server about which nothing is known.
    pub(super) fn unknown(settings: &HintSettings) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            model: settings.model.clone(),
            pod: settings.pod.clone(),
            ready: 0,
            demand_replicas: 0.0,
            demand_percent: 0,
            utilization: 0.0,
            offered_rps: 0.0,
            accepted_rps: 0.0,
            refused_rps: 0.0,
            offered_slope: 0.0,
            capacity_rps: 0.0,
            max_rps: 0.0,
            target_utilization: settings.utilization,
            target_concurrency: 0.0,
            in_flight: 0,
            queue_depth: 0,
            backlog: 0,
            oldest_wait_seconds: 0.0,
            slo_seconds: settings.objective.unwrap_or(0.0),
            slo_feasible: 1,
            p99_seconds: 0.0,
            request_tokens: 0.0,
            confidence: 0.0,
            startup_seconds: 0.0,
            calibration: Calibration::default(),
            recommended: Recommended::new(0.0, 0.0, settings, 0.0),
            explanation: Vec::new(),
        }
    }
}
