//! Settings of scalers that follow from the capacity.

use serde::Serialize;

use super::settings::Settings;

/// Utilization above which Kubernetes' own dead band of 10 % would hide an overload.
const TARGET_MAX: f64 = 0.9;

/// Settings by scaler.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommended {
    /// Knative's KPA by requests a second.
    pub knative: Knative,
    /// Knative's KPA by requests in flight.
    pub knative_concurrency: Knative,
    /// KEDA's metrics-api trigger.
    pub keda: Keda,
    /// A Pods metric of the HPA.
    pub hpa: Hpa,
    /// KEDA's Kafka trigger.
    pub kafka: Kafka,
}

/// Annotations `autoscaling.knative.dev/…` and `containerConcurrency`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Knative {
    /// `metric`.
    pub metric: &'static str,
    /// `target`: a whole number unless it would be 0; the least that Knative takes is 0.01.
    pub target: f64,
    /// `target-utilization-percentage`.
    pub target_utilization_percentage: u32,
    /// `containerConcurrency`: 0, so that the queue is where it is seen.
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
    /// Its name.
    pub metric: &'static str,
    /// `averageValue`.
    pub target_average_value: &'static str,
    /// `stabilizationWindowSeconds` of `scaleDown`.
    pub scale_down_seconds: u32,
}

/// Metadata of a trigger of type `kafka`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kafka {
    /// `lagThreshold`: the lag that one server works off while a backlog may last.
    pub lag_threshold: u64,
}

impl Recommended {
    /// For a server that does `rate` requests a second with `in_flight` under way, and that takes
    /// `startup` seconds to start.
    pub fn new(rate: f64, in_flight: f64, settings: &Settings, startup: f64) -> Self {
        let utilization = settings.utilization.min(TARGET_MAX);
        let percentage = (utilization * 100.0).round() as u32;
        let knative = |metric, target: f64, percentage| Knative {
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
                // Down only when the load has been gone for longer than it takes to come back.
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

    fn settings(utilization: f64) -> Settings {
        Settings {
            objective: Some(0.1),
            utilization,
            drain: 30.0,
            trend: Trend::Off,
            pod: "pod".to_owned(),
            model: "model".to_owned(),
        }
    }

    #[test]
    fn targets_are_what_one_server_can_do() {
        let found = Recommended::new(4418.7, 22.1, &settings(0.8), 20.0);
        assert_eq!(found.knative.target, 4418.0);
        assert_eq!(found.knative.target_utilization_percentage, 80);
        assert_eq!(found.knative_concurrency.target, 22.0);
        assert_eq!(found.kafka.lag_threshold, 132_561);
        assert_eq!(found.hpa.scale_down_seconds, 60);
    }

    #[test]
    fn targets_are_valid_even_of_a_server_of_which_nothing_is_known() {
        let found = Recommended::new(0.0, 0.0, &settings(1.0), 0.0);
        assert_eq!(found.knative.target, 0.01);
        assert_eq!(found.knative.target_utilization_percentage, 90);
        assert_eq!(found.kafka.lag_threshold, 1);
    }
}
