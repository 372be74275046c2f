//! The recommended settings as YAML.

use super::recommend::{Hpa, Recommended};
use super::snapshot::Snapshot;

/// The recommended settings as YAML. The comment of each block says where it belongs.
pub fn manifest(snapshot: &Snapshot, admin_port: u16) -> String {
    let Snapshot {
        model,
        capacity_rps,
        target_concurrency,
        slo_seconds,
        confidence,
        recommended,
        ..
    } = snapshot;
    let slo_ms = slo_seconds * 1e3;
    let head = format!(
        "\
# {model}: {capacity_rps:.1} requests a second with 99 of 100 within {slo_ms:.0} ms (0: no objective),
# {target_concurrency:.1} in flight. Known with confidence {confidence:.2}; below 0.8, read this again under
# load.

"
    );
    let blocks = [
        recommended.knative_block(*confidence),
        recommended.keda_block(admin_port),
        recommended.hpa_block(),
    ];
    head + &blocks.join("---\n")
}

impl Recommended {
    /// Without a target while the capacity is unknown: Knative would start a replica for each request a minute.
    fn knative_block(&self, confidence: f64) -> String {
        let (rps, concurrency) = (&self.knative, &self.knative_concurrency);
        let target = if confidence > 0.0 {
            format!("autoscaling.knative.dev/target: \"{}\"", rps.target)
        } else {
            "# autoscaling.knative.dev/target: not known yet, since no batch has run; read this again.".to_owned()
        };
        format!(
            "\
# Knative Service, spec.template: by requests a second.
metadata:
  annotations:
    autoscaling.knative.dev/class: kpa.autoscaling.knative.dev
    autoscaling.knative.dev/metric: {metric}
    {target}
    autoscaling.knative.dev/target-utilization-percentage: \"{percentage}\"
    autoscaling.knative.dev/target-burst-capacity: \"0\"
    # Not by requests a second but by requests in flight, which grows faster than the load:
    # autoscaling.knative.dev/metric: {by_concurrency}
    # autoscaling.knative.dev/target: \"{in_flight}\"
spec:
  containerConcurrency: {container}
",
            metric = rps.metric,
            percentage = rps.target_utilization_percentage,
            by_concurrency = concurrency.metric,
            in_flight = concurrency.target,
            container = rps.container_concurrency,
        )
    }

    fn keda_block(&self, admin_port: u16) -> String {
        format!(
            "\
# KEDA ScaledObject of a plain Deployment, spec: either trigger alone sizes it.
triggers:
  - type: metrics-api
    metadata:
      url: \"http://SERVICE.NAMESPACE:{admin_port}/autoscaling\"
      valueLocation: {location}
      targetValue: \"{target}\"
      aggregateFromKubeServiceEndpoints: \"true\"
      aggregationType: {aggregation}
  - type: prometheus
    metadata:
      serverAddress: http://PROMETHEUS:9090
      query: sum(intentd_autoscaling_demand_replicas{{namespace=\"NAMESPACE\"}})
      threshold: \"1\"
      ignoreNullValues: \"false\"
---
# KEDA trigger that wakes a consumer of its own from zero, and bounds it by the lag.
triggers:
  - type: kafka
    metadata:
      bootstrapServers: KAFKA:9092
      consumerGroup: GROUP
      topic: TOPIC
      lagThreshold: \"{lag}\"
",
            location = self.keda.value_location,
            target = self.keda.target_value,
            aggregation = self.keda.aggregation_type,
            lag = self.kafka.lag_threshold,
        )
    }

    fn hpa_block(&self) -> String {
        let Hpa {
            metric,
            target_average_value,
            scale_down_seconds,
        } = self.hpa;
        format!(
            "\
# HorizontalPodAutoscaler, spec: with an adapter that serves Prometheus' metrics of pods.
metrics:
  - type: Pods
    pods:
      metric:
        name: {metric}
      target:
        type: AverageValue
        averageValue: \"{target_average_value}\"
behavior:
  scaleDown:
    stabilizationWindowSeconds: {scale_down_seconds}
"
        )
    }
}
