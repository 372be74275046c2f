//! What is published, as `/autoscaling` gives it.

use serde::Serialize;

use super::recommend::Recommended;

/// The version of the JSON: it changes when a key changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// The hints at a moment. Every number is finite; rates are in mean requests a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The model that answers.
    pub model: String,
    /// The replica: its host name.
    pub pod: String,
    /// Whether requests are answered: 1 or 0.
    pub ready: u8,
    /// Servers like this one that this one's load needs. Adds up over replicas; the target is 1.
    pub demand_replicas: f64,
    /// The same in percent, rounded up; the target is 100.
    pub demand_percent: u64,
    /// What is offered by the capacity; above 1 when more is asked than can be done.
    pub utilization: f64,
    /// Requests a second that come, refused ones included.
    pub offered_rps: f64,
    /// Requests a second that are answered.
    pub accepted_rps: f64,
    /// Requests a second that are refused because of the load or the server's state.
    pub refused_rps: f64,
    /// Change of `offered_rps` in a second.
    pub offered_slope: f64,
    /// λ_slo: requests a second that keep the objective; without a model, 0.
    pub capacity_rps: f64,
    /// Requests a second that can be answered at all.
    pub max_rps: f64,
    /// Part of the capacity that is to be used.
    pub target_utilization: f64,
    /// L*: requests in flight, on average, at `capacity_rps`.
    pub target_concurrency: f64,
    /// Requests admitted and not yet answered.
    pub in_flight: u64,
    /// Texts that wait for the engine.
    pub queue_depth: u64,
    /// Records of Kafka that are this server's to read and that it has not read yet.
    pub backlog: u64,
    /// How long the oldest waiting text has waited.
    pub oldest_wait_seconds: f64,
    /// The objective; 0 for none.
    pub slo_seconds: f64,
    /// Whether any rate keeps it: 1 or 0.
    pub slo_feasible: u8,
    /// 99th percentile of the latency in the last minute, from when a request is whole to its answer; 0
    /// without requests.
    pub p99_seconds: f64,
    /// Tokens of the mean request.
    pub request_tokens: f64,
    /// How well the capacity is known, from 0 to 1.
    pub confidence: f64,
    /// How long this server took from its start until it answered.
    pub startup_seconds: f64,
    /// What the capacity follows from.
    pub calibration: Calibration,
    /// Settings of scalers.
    pub recommended: Recommended,
}

/// What the capacity follows from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Calibration {
    /// τ0: what any batch takes.
    pub tau0_seconds: f64,
    /// α: what a token adds.
    pub alpha_seconds: f64,
    /// Mean distance of batches from τ0 + α·n, as a part of what they took.
    pub fit_error_ratio: f64,
    /// Batches that were measured.
    pub samples: u64,
    /// CPU time of a request outside of the engine.
    pub host_seconds: f64,
    /// CPU time that comes with each batch on top.
    pub host_batch_seconds: f64,
    /// 99th percentile of what a request spends outside of queue and engine.
    pub overhead_seconds: f64,
    /// How much longer batches take because of others on the same cores; 1 without.
    pub contention_ratio: f64,
    /// κ: 99th percentile of the latency by its mean.
    pub kappa: f64,
    /// Requests of the largest batch.
    pub batch_max: f64,
}
