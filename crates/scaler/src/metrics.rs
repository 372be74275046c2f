//! The metrics that the scaler publishes about itself.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::tally::ReplicaCounts;

/// States of a replica, see [`ReplicaCounts`].
const STATES: [&str; 3] = ["fresh", "kept", "silent"];

/// Kinds of failed polls.
const KINDS: [&str; 5] = ["resolve", "connect", "timeout", "answer", "wake"];

/// Sums over all workloads.
#[derive(Debug, Default, PartialEq)]
pub(super) struct WorkloadTotals {
    pub(super) workloads: usize,
    /// In replicas.
    pub(super) demand: f64,
    pub(super) replicas: ReplicaCounts,
}

/// The scaler's metrics.
#[derive(Debug, Clone)]
pub(super) struct ScalerMetrics {
    registry: Registry,
    replicas: IntGaugeVec,
    demand: Gauge,
    workloads: IntGauge,
    poll_failures: IntCounterVec,
    /// Calls by method and code.
    pub(super) rpcs: IntCounterVec,
    /// Open connections, by port.
    pub(super) connections: IntGaugeVec,
    /// Connections that were closed immediately because there were too many, by port.
    pub(super) connections_refused: IntCounterVec,
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("intentd_scaler_{name}"), help)
}

fn register<T: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<T>,
) -> T {
    let metric = metric.expect("the name is well formed");
    registry
        .register(Box::new(metric.clone()))
        .expect("the name is unique");
    metric
}

impl ScalerMetrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let counters =
            |name, help, labels: &[&str]| register(r, IntCounterVec::new(opts(name, help), labels));
        let gauges = |name, help, label| register(r, IntGaugeVec::new(opts(name, help), &[label]));
        let metrics = Self {
            replicas: gauges(
                "replicas",
                "Replicas of all workloads: fresh answered last time, kept count with their last \
                 answer, silent do not count.",
                "state",
            ),
            demand: register(
                r,
                Gauge::with_opts(opts(
                    "demand_replicas",
                    "Sum of the demand of all workloads of which it is known. In replicas.",
                )),
            ),
            workloads: register(
                r,
                IntGauge::with_opts(opts("workloads", "Workloads that are watched.")),
            ),
            poll_failures: counters(
                "poll_failures_total",
                "Replicas, names (resolve) and wake sources (wake) that did not answer, by kind.",
                &["kind"],
            ),
            rpcs: counters(
                "rpcs_total",
                "Calls by method and gRPC status code; a stream counts when it begins.",
                &["method", "code"],
            ),
            connections: gauges("connections", "Open connections.", "port"),
            connections_refused: counters(
                "connections_refused_total",
                "Connections closed at once because there were too many.",
                &["port"],
            ),
            registry: registry.clone(),
        };
        for state in STATES {
            metrics.replicas.with_label_values(&[state]);
        }
        for kind in KINDS {
            metrics.poll_failures.with_label_values(&[kind]);
        }
        metrics
    }

    pub(super) fn poll_failed(&self, kind: &str) {
        self.poll_failures.with_label_values(&[kind]).inc();
    }

    /// The content type and the text of all metrics in the Prometheus exposition format.
    pub(super) fn render(&self, totals: &WorkloadTotals) -> (String, Vec<u8>) {
        let ReplicaCounts {
            fresh,
            kept,
            silent,
        } = totals.replicas;
        let counts = [fresh, kept, silent];
        for (state, count) in STATES.into_iter().zip(counts) {
            let gauge = self.replicas.with_label_values(&[state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.demand.set(totals.demand);
        let workloads = i64::try_from(totals.workloads).unwrap_or(i64::MAX);
        self.workloads.set(workloads);
        let encoder = TextEncoder::new();
        let mut text = Vec::with_capacity(4 << 10);
        encoder
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail, and every metric has a value");
        (encoder.format_type().to_owned(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_help_and_type() {
        let metrics = ScalerMetrics::new();
        metrics.poll_failed("connect");
        metrics.rpcs.with_label_values(&["IsActive", "0"]).inc();
        let totals = WorkloadTotals {
            workloads: 1,
            demand: 2.5,
            replicas: ReplicaCounts {
                fresh: 3,
                ..ReplicaCounts::default()
            },
        };
        let (_, text) = metrics.render(&totals);
        let text = String::from_utf8(text).unwrap();
        for line in [
            "intentd_scaler_replicas{state=\"fresh\"} 3",
            "intentd_scaler_replicas{state=\"silent\"} 0",
            "intentd_scaler_demand_replicas 2.5",
            "intentd_scaler_poll_failures_total{kind=\"connect\"} 1",
            "intentd_scaler_poll_failures_total{kind=\"wake\"} 0",
            "intentd_scaler_rpcs_total{code=\"0\",method=\"IsActive\"} 1",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing from\n{text}"
            );
        }
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
