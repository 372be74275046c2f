//! Recommended settings for scalers, derived from the capacity.

use serde::Serialize;

use super::settings::HintSettings;

/// Maximum target utilization: above it, the 10 % tolerance of the HPA would hide an overload.
const TARGET_MAX: f64 = 0.9;

/// Recommended settings by scaler.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommended {
    /// Knative's KPA by requests per second.
    pub knative: KnativeAnnotations,
    /// Knative's KPA by requests in flight.
    pub knative_concurrency: KnativeAnnotations,
    /// KEDA's metrics-api trigger.
    pub keda: Keda,
    /// A Pods metric of the HPA.
    pub hpa: Hpa,
    /// KEDA's Kafka trigger.
    pub kafka: Kafka,
}

/// Annotations `autoscaling.knative.dev/…` and `containerConcurrency`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KnativeAnnotations {
    /// `metric`.
    pub metric: &'static str,
    /// `target`: a whole number unless it would be 0. The minimum of Knative is 0.01.
    pub target: f64,
    /// `target-utilization-percentage`.
    pub target_utilization_percentage: u32,
    /// `containerConcurrency`: 0, so that requests wait in this server's queue, where it sees them.
    pub container_concurrency: u32,
}

/// Metadata of a trigger of type `metrics-api`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Keda {
    /// `valueLocation`.
    pub value_location: &'static str,
    /// `targetValue`.
    pub target_value: &'static str,
    /// `aggregationType`.
    pub aggregation_type: &'static str,
}

/// A metric of type `Pods`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hpa {
    /// The name of the metric.
    pub metric: &'static str,
    /// `averageValue`.
    pub target_average_value: &'static str,
    /// `stabilizationWindowSeconds` of `scaleDown`.
    pub scale_down_seconds: u32,
}

/// Metadata of a trigger of type `kafka`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kafka {
    /// `lagThreshold`: the lag that one server processes within the drain time.
    pub lag_threshold: u64,
}

impl Recommended {
    /// Settings for a server with capacity `rate`, `in_flight` requests in flight at that rate, and a start of
    /// `startup` seconds.
    pub fn new(rate: f64, in_flight: f64, settings: &HintSettings, startup: f64) -> Self {
        let utilization = settings.utilization.min(TARGET_MAX);
        let percentage = (utilization * 100.0).round() as u32;
        let knative = |metric, target: f64, percentage| KnativeAnnotations {
            metric,
            target: if target >= 1.0 {
                target.floor()
            } else {
                (target * 100.0).floor().max(1.0) / 100.0
            },
            target_utilization_percentage: percentage,
            container_concurrency: 0,
        };
        Self {
            knative: knative("rps", rate, percentage),
            knative_concurrency: knative("concurrency", in_flight, percentage),
            keda: Keda {
                value_location: "demand_replicas",
                target_value: "1",
                aggregation_type: "sum",
            },
            hpa: Hpa {
                metric: "intentd_autoscaling_demand_percent",
                target_average_value: "100",
                // Scale down only once the load has been low for longer than a restart takes.
                scale_down_seconds: (2.0 * startup).ceil().clamp(60.0, 3600.0) as u32,
            },
            kafka: Kafka {
                lag_threshold: ((rate * settings.drain) as u64).max(1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::Trend;

    fn settings(utilization: f64) -> HintSettings {
        HintSettings {
            objective: Some(0.1),
            utilization,
            drain: 30.0,
            trend: Trend::Off,
            pod: "pod".to_owned(),
            model: "model".to_owned(),
        }
    }

    #[test]
    fn targets_are_the_capacity_of_one_server() {
        let found = Recommended::new(4418.7, 22.1, &settings(0.8), 20.0);
        assert_eq!(found.knative.target, 4418.0);
        assert_eq!(found.knative.target_utilization_percentage, 80);
        assert_eq!(found.knative_concurrency.target, 22.0);
        assert_eq!(found.kafka.lag_threshold, 132_561);
        assert_eq!(found.hpa.scale_down_seconds, 60);
    }

    #[test]
    fn targets_are_valid_for_an_unknown_server() {
        let found = Recommended::new(0.0, 0.0, &settings(1.0), 0.0);
        assert_eq!(found.knative.target, 0.01);
        assert_eq!(found.knative.target_utilization_percentage, 90);
        assert_eq!(found.kafka.lag_threshold, 1);
    }
}
