//! Our metrics under Triton's names, for inference gateways that read no others (`--triton-metrics`). See
//! "Metrics" in Triton's user guide for their meanings.

use std::fmt::Write as _;

use super::{Metrics, Outcome};

/// Triton's names for our metrics.
#[derive(Debug, Clone)]
pub struct TritonMetrics {
    /// `{model="…",version="1"}`.
    labels: String,
}

/// A series with only the common labels.
struct TritonSeries {
    name: &'static str,
    /// Its Prometheus type.
    kind: &'static str,
    help: &'static str,
    value: f64,
}

impl TritonMetrics {
    /// Metrics of the model called `model`.
    pub fn new(model: &str) -> Self {
        let model = model
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        Self {
            labels: format!("model=\"{model}\",version=\"1\""),
        }
    }

    /// All series except the failures.
    fn series(metrics: &Metrics) -> [TritonSeries; 7] {
        let micros = |histogram: &prometheus::Histogram| histogram.get_sample_sum() * 1e6;
        let sum = metrics.batch_size.get_sample_sum();
        let batches = metrics.batch_size.get_sample_count() as f64;
        [
            TritonSeries {
                name: "nv_inference_request_success",
                kind: "counter",
                help: "Requests that were answered.",
                value: metrics.ended(Outcome::Answered) as f64,
            },
            TritonSeries {
                name: "nv_inference_count",
                kind: "counter",
                help: "Texts that were given to the engine.",
                value: sum,
            },
            TritonSeries {
                name: "nv_inference_exec_count",
                kind: "counter",
                help: "Batches that were given to the engine.",
                value: batches,
            },
            TritonSeries {
                name: "nv_inference_pending_request_count",
                kind: "gauge",
                help: "Texts that wait for the engine.",
                value: metrics.queue_depth.get() as f64,
            },
            TritonSeries {
                name: "nv_inference_request_duration_us",
                kind: "counter",
                help: "Time of all requests in microseconds.",
                value: micros(&metrics.request_seconds),
            },
            TritonSeries {
                name: "nv_inference_queue_duration_us",
                kind: "counter",
                help: "Time that all texts waited in microseconds.",
                value: micros(&metrics.queue_seconds),
            },
            TritonSeries {
                name: "nv_inference_compute_infer_duration_us",
                kind: "counter",
                help: "Time of all batches in microseconds.",
                value: micros(&metrics.compute_seconds),
            },
        ]
    }

    /// Appends them to an exposition in the Prometheus text format.
    pub fn append(&self, metrics: &Metrics, text: &mut Vec<u8>) {
        let ended = |outcome| metrics.ended(outcome) as f64;
        let refused = |reason: &str| metrics.refused.with_label_values(&[reason]).get() as f64;
        let failures = refused("engine");
        let others = super::REASONS.iter().filter(|reason| **reason != "engine");
        let rejected: f64 = others.map(|reason| refused(reason)).sum();
        let mut out = String::with_capacity(2 << 10);
        let labels = &self.labels;
        for series in Self::series(metrics) {
            let TritonSeries {
                name,
                kind,
                help,
                value,
            } = series;
            // Writing to a string does not fail.
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}\n"
            );
        }
        let name = "nv_inference_request_failure";
        let _ = write!(
            out,
            "# HELP {name} Requests that were not answered.\n# TYPE {name} counter\n"
        );
        for (reason, value) in [
            ("REJECTED", rejected),
            ("CANCELED", ended(Outcome::Abandoned)),
            ("BACKEND", failures),
        ] {
            let _ = writeln!(out, "{name}{{{labels},reason=\"{reason}\"}} {value}");
        }
        text.extend_from_slice(out.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_tritons() {
        let metrics = Metrics::new();
        metrics.queue_depth.set(3);
        metrics.batch_size.observe(5.0);
        let mut text = Vec::new();
        TritonMetrics::new("a\"b").append(&metrics, &mut text);
        let text = String::from_utf8(text).unwrap();
        for line in [
            r#"nv_inference_pending_request_count{model="a\"b",version="1"} 3"#,
            r#"nv_inference_count{model="a\"b",version="1"} 5"#,
            r#"nv_inference_exec_count{model="a\"b",version="1"} 1"#,
            r#"nv_inference_request_failure{model="a\"b",version="1",reason="BACKEND"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
