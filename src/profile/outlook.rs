//! The capacity of a server by its profile: rates within objectives, settings of autoscalers, the cost of a
//! concurrency limit.

use serde::Serialize;

use super::file::Profile;
use crate::autoscale::queueing::{Host, LatencyObjective, ServerModel};
use crate::autoscale::recommend::Recommended;
use crate::autoscale::tail::Tail;
use crate::autoscale::{HintSettings, Trend};
use crate::serving::{ServiceLine, tokens_a_batch};

/// Target utilization of a replica: the default of `intentd serve`.
const UTILIZATION: f64 = 0.8;

/// Seconds within which a backlog should be drained: the default of `intentd serve`.
const DRAIN: f64 = 30.0;

/// Values of Knative's `containerConcurrency`. 2 is the value of the article that this project started from.
const CONTAINER_CONCURRENCY: [usize; 3] = [1, 2, 10];

/// The capacity of a server by its profile. Only the engine is counted: the cost of sockets and HTTP is
/// learned while serving.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlook {
    /// Tokens of the mean request, which is one text.
    pub request_tokens: usize,
    /// Requests a second in batches of the best size.
    pub max_rps: f64,
    /// The capacity within each objective.
    pub objectives: Vec<ObjectiveCapacity>,
    /// The capacity under each concurrency limit.
    pub container_concurrency: Vec<LimitedConcurrency>,
}

/// The capacity of a server within an objective.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectiveCapacity {
    /// The objective: seconds within which 99 of 100 requests should be answered.
    pub slo_seconds: f64,
    /// Whether any rate keeps the objective.
    pub feasible: bool,
    /// λ_slo: the highest rate that keeps the objective, in requests a second. 85 % of `max_rps` if none does.
    pub capacity_rps: f64,
    /// L*: mean requests in flight at that rate; 0 if no rate keeps the objective.
    pub in_flight: f64,
    /// Requests a second in the largest batches that fit into the objective.
    pub max_rps: f64,
    /// Requests in such a batch.
    pub batch_max: f64,
    /// κ: the ratio of the latency's 99th percentile to its mean.
    pub kappa: f64,
    /// The resulting settings of autoscalers.
    pub recommended: Recommended,
}

/// The capacity of a server under a concurrency limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LimitedConcurrency {
    /// The limit: requests in the server at once, and therefore in a batch.
    pub container_concurrency: usize,
    /// Most requests a second, when the next requests arrive without a pause.
    pub max_rps: f64,
    /// The ratio of `max_rps` to the rate without the limit.
    pub share: f64,
    /// Servers needed for the load of one server without the limit.
    pub replicas: u64,
}

impl Outlook {
    /// Computes the outlook for requests of one text with `tokens` tokens and for objectives in seconds.
    pub fn new(profile: &Profile, tokens: usize, objectives: &[f64]) -> Self {
        let most = profile.grid.batch_tokens / tokens.max(1);
        let most = most.min(profile.grid.batch_texts).max(1);
        let max_rps = best(profile, tokens, most);
        let limited = |texts: usize| {
            let rate = best(profile, tokens, texts.min(most));
            LimitedConcurrency {
                container_concurrency: texts,
                max_rps: rate,
                share: rate / max_rps,
                replicas: (max_rps / rate).ceil() as u64,
            }
        };
        Self {
            request_tokens: tokens,
            max_rps,
            objectives: objectives
                .iter()
                .map(|slo| ObjectiveCapacity::new(profile, tokens, *slo))
                .collect(),
            container_concurrency: CONTAINER_CONCURRENCY.map(limited).to_vec(),
        }
    }
}

/// Requests a second in batches of the best size up to `texts`, which need not be the largest.
fn best(profile: &Profile, tokens: usize, texts: usize) -> f64 {
    let column = profile.points.iter().filter(|p| p.shape.tokens == tokens);
    let smaller = column.map(|p| p.shape.texts).filter(|size| *size < texts);
    // Only measured sizes: no size between two of them is better than both.
    smaller
        .map(|size| rate(profile, tokens, size))
        .fold(rate(profile, tokens, texts), f64::max)
}

/// Requests a second in batches of `texts` texts: measured, interpolated between measured sizes, or else by
/// the line.
fn rate(profile: &Profile, tokens: usize, texts: usize) -> f64 {
    let column = || profile.points.iter().filter(|p| p.shape.tokens == tokens);
    let below = column().filter(|p| p.shape.texts <= texts);
    let above = column().filter(|p| p.shape.texts >= texts);
    let below = below.max_by_key(|p| p.shape.texts);
    let above = above.min_by_key(|p| p.shape.texts);
    let seconds = match (below, above) {
        (Some(below), Some(above)) => {
            let (low, high) = (below.shape.texts as f64, above.shape.texts as f64);
            let part = (texts as f64 - low) / (high - low).max(1.0);
            below.seconds_median + part * (above.seconds_median - below.seconds_median)
        }
        _ => profile.fit.seconds((texts * tokens) as f64),
    };
    texts as f64 / seconds.max(1e-9)
}

/// The queueing model of a server with an objective of `slo` seconds.
pub(super) fn model(profile: &Profile, tokens: usize, slo: f64) -> ServerModel {
    let fit = &profile.fit;
    let line = ServiceLine {
        setup: fit.tau0_seconds,
        token: fit.alpha_seconds,
    };
    let batch_tokens = tokens_a_batch(line, Some(slo), profile.grid.batch_tokens as f64);
    ServerModel {
        service: fit.service(tokens as f64),
        batch_max: (batch_tokens / tokens as f64)
            .min(profile.grid.batch_texts as f64)
            .max(1.0),
        host: Host::FREE,
    }
}

impl ObjectiveCapacity {
    fn new(profile: &Profile, tokens: usize, slo: f64) -> Self {
        let model = model(profile, tokens, slo);
        let objective = |tail| LatencyObjective {
            seconds: slo,
            overhead: 0.0,
            tail,
        };
        let usable = model.capacity(None).rate;
        let mut tail = Tail::default();
        let mut kappa = tail.find(&model, usable, slo);
        // Each step comes closer.
        for _ in 0..4 {
            kappa = tail.find(&model, usable, slo);
        }
        let capacity = model.capacity(Some(objective(kappa)));
        let latency = model.service.mean_latency(capacity.rate);
        let in_flight = if capacity.feasible {
            capacity.rate * latency
        } else {
            0.0
        };
        let settings = HintSettings {
            objective: Some(slo),
            utilization: UTILIZATION,
            drain: DRAIN,
            trend: Trend::Off,
            pod: String::new(),
            model: profile.model.name.clone(),
        };
        Self {
            slo_seconds: slo,
            feasible: capacity.feasible,
            capacity_rps: capacity.rate,
            in_flight,
            max_rps: capacity.rate_max,
            batch_max: model.batch_max,
            kappa,
            recommended: Recommended::new(
                capacity.rate,
                in_flight,
                &settings,
                profile.startup_seconds,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::profile;
    use super::*;

    #[test]
    fn the_cost_of_a_limit_follows_the_service_curve() {
        let outlook = Outlook::new(&profile(), 16, &[0.1]);
        // 1 ms a batch and 0.16 ms a request.
        assert!((outlook.max_rps - 256.0 / 41.96e-3).abs() < 1.0);
        let [one, two, ten] = outlook.container_concurrency[..] else {
            panic!("three limits")
        };
        assert!((one.max_rps - 1.0 / 1.16e-3).abs() < 0.1);
        assert!((two.max_rps - 2.0 / 1.32e-3).abs() < 0.1);
        assert!((ten.max_rps - 10.0 / 2.6e-3).abs() < 0.1, "by the line");
        assert_eq!([one, two, ten].map(|limited| limited.replicas), [8, 5, 2]);
        assert!((two.share - two.max_rps / outlook.max_rps).abs() < 1e-9);
    }

    /// Large batches may be slower, for example when they exceed a cache.
    #[test]
    fn a_limit_is_compared_with_the_best_size() {
        let mut profile = profile();
        let best = profile
            .points
            .iter_mut()
            .find(|p| p.shape.tokens == 16 && p.shape.texts == 8)
            .unwrap();
        best.seconds_median = 0.5e-3;
        let outlook = Outlook::new(&profile, 16, &[]);
        assert!((outlook.max_rps - 8.0 / 0.5e-3).abs() < 1e-6);
        let ten = outlook.container_concurrency[2];
        assert_eq!((ten.share, ten.replicas), (1.0, 1));
    }

    #[test]
    fn a_longer_objective_allows_more() {
        let outlook = Outlook::new(&profile(), 16, &[1e-3, 0.02, 0.1]);
        let [impossible, short, long] = &outlook.objectives[..] else {
            panic!("three objectives")
        };
        assert!(!impossible.feasible && impossible.in_flight == 0.0);
        assert!(short.feasible && long.feasible);
        assert!(short.capacity_rps < long.capacity_rps);
        assert!(long.capacity_rps <= long.max_rps);
        assert!(short.in_flight > 0.0 && (1.0..=4.0).contains(&short.kappa));
        assert_eq!(long.recommended.knative.target, long.capacity_rps.floor());
    }
}
