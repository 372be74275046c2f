//! The names by which inference gateways know Triton's metrics, for those that read no others
//! (`--triton-metrics`). What each means is Triton's user guide, "Metrics".

use std::fmt::Write as _;

use super::{Metrics, Outcome};

/// Triton's names for our metrics.
#[derive(Debug, Clone)]
pub struct TritonMetrics {
    /// `{model="…",version="1"}`.
    labels: String,
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

    /// Name, type, help and value of all series but the failures.
    fn series(metrics: &Metrics) -> [(&'static str, &'static str, &'static str, f64); 7] {
        let micros = |histogram: &prometheus::Histogram| histogram.get_sample_sum() * 1e6;
        let sum = metrics.batch_size.get_sample_sum();
        let batches = metrics.batch_size.get_sample_count() as f64;
        [
            (
                "nv_inference_request_success",
                "counter",
                "Requests that were answered.",
                metrics.ended(Outcome::Answered) as f64,
            ),
            (
                "nv_inference_count",
                "counter",
                "Texts that were given to the engine.",
                sum,
            ),
            (
                "nv_inference_exec_count",
                "counter",
                "Batches that were given to the engine.",
                batches,
            ),
            (
                "nv_inference_pending_request_count",
                "gauge",
                "Texts that wait for the engine.",
                metrics.queue_depth.get() as f64,
            ),
            (
                "nv_inference_request_duration_us",
                "counter",
                "Time of all requests in microseconds.",
                micros(&metrics.request_seconds),
            ),
            (
                "nv_inference_queue_duration_us",
                "counter",
                "Time that all texts waited in microseconds.",
                micros(&metrics.queue_seconds),
            ),
            (
                "nv_inference_compute_infer_duration_us",
                "counter",
                "Time of all batches in microseconds.",
                micros(&metrics.compute_seconds),
            ),
        ]
    }

    /// Adds them to an exposition in Prometheus' text format.
    pub fn append(&self, metrics: &Metrics, text: &mut Vec<u8>) {
        let ended = |outcome| metrics.ended(outcome) as f64;
        let refused = |reason: &str| metrics.refused.with_label_values(&[reason]).get() as f64;
        let failures = refused("engine");
        let others = super::REASONS.iter().filter(|reason| **reason != "engine");
        let rejected: f64 = others.map(|reason| refused(reason)).sum();
        let mut out = String::with_capacity(2 << 10);
        let labels = &self.labels;
        for (name, kind, help, value) in Self::series(metrics) {
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
