//! The metrics of this server: name, help text and unit.
//!
//! All series exist from the first scrape on. Values are atomics: reading them waits neither for the engine nor
//! for a lock of the batcher.

mod labels;
mod triton;

use std::sync::LazyLock;

use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use self::labels::{Outcome, SurfaceLabel};
pub use self::triton::TritonMetrics;

/// The process's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests for predictions, whatever their outcome.
    pub offered: IntCounter,
    /// Requests by outcome and by surface.
    requests: IntCounterVec,
    /// Requests by outcome, for all surfaces together, in the order of [`Outcome`]. Not published.
    ended: [IntCounter; 3],
    /// Refused requests by reason.
    pub refused: IntCounterVec,
    /// Requests in flight: admitted and not yet answered.
    pub in_flight: IntGauge,
    /// The limit on requests in flight.
    pub concurrency_limit: IntGauge,
    /// Texts admitted and not yet taken by the engine.
    pub queue_depth: IntGauge,
    /// Texts whose client left before the engine took them.
    pub abandoned_texts: IntCounter,
    /// Texts in a batch.
    pub batch_size: Histogram,
    /// Tokens in a batch.
    pub batch_tokens: Histogram,
    /// Seconds that tokenizing a request took.
    pub tokenize_seconds: Histogram,
    /// Seconds a text waited for the engine.
    pub queue_seconds: Histogram,
    /// Seconds a batch spent in the engine.
    pub compute_seconds: Histogram,
    /// Seconds from arrival to answer.
    pub request_seconds: Histogram,
    /// Failed batches.
    pub engine_failures: IntCounter,
    /// Seconds spent on batches, by the device's clock if it has one.
    pub engine_busy: Counter,
    /// Seconds that each part of the start took.
    pub startup_seconds: GaugeVec,
    /// 1 if the server is ready, else 0.
    pub ready: IntGauge,
    /// Spans of requests by outcome.
    pub trace_spans: IntCounterVec,
    /// Reloads of the model by outcome.
    pub reloads: IntCounterVec,
    /// Open connections by port.
    pub connections: IntGaugeVec,
    /// Connections closed at once because there were too many, by port.
    pub connections_refused: IntCounterVec,
}

const REASONS: [&str; 10] = [
    "loading",
    "unhealthy",
    "unauthorized",
    "concurrency",
    "queue",
    "overload",
    "deadline",
    "engine",
    "memory",
    "client",
];

/// Help texts by metric name without `intentd_`.
const HELP: [(&str, &str); 22] = [
    (
        "requests_total",
        "Requests for predictions by how they ended and by the interface they came by.",
    ),
    (
        "offered_requests_total",
        "Requests for predictions that have come, refused ones included.",
    ),
    (
        "refused_total",
        "Refused requests for predictions by reason.",
    ),
    ("in_flight", "Requests admitted and not yet answered."),
    ("concurrency_limit", "Requests that may be in flight."),
    (
        "queue_depth",
        "Texts admitted and not yet taken by the engine, texts being tokenized included.",
    ),
    (
        "abandoned_texts_total",
        "Texts whose client left before the engine took them.",
    ),
    ("batch_size", "Texts in a batch."),
    ("batch_tokens", "Tokens in a batch."),
    (
        "tokenize_seconds",
        "Tokenizing the texts of a request. In seconds.",
    ),
    (
        "queue_seconds",
        "Wait of a text for the engine. In seconds.",
    ),
    ("compute_seconds", "A batch in the engine. In seconds."),
    (
        "request_seconds",
        "A request from its arrival to its answer. In seconds.",
    ),
    ("engine_failures_total", "Batches that the engine failed."),
    (
        "engine_busy_seconds_total",
        "Seconds spent on batches, by the device's clock where there is one.",
    ),
    ("startup_seconds", "How long the parts of the start took."),
    ("ready", "1 when requests are answered, else 0."),
    (
        "trace_spans_total",
        "Spans for the collector (--otlp-endpoint) by what became of them.",
    ),
    (
        "reloads_total",
        "Models loaded in the place of another, by how it went.",
    ),
    (
        "connections_refused_total",
        "Connections closed at once because there were too many (--max-connections).",
    ),
    ("connections", "Open connections."),
    (
        "log_lines_dropped_total",
        "Lines of the log that were dropped since nobody read it.",
    ),
];

/// Log lines of this process that were dropped. Global, because every command's metrics include it.
pub static LOG_LINES_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    IntCounter::with_opts(opts("log_lines_dropped_total")).expect("the name is well formed")
});

/// From 20 µs (a tiny model on an idle machine) to 10 s.
const SECONDS: [f64; 18] = [
    0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
    0.5, 1.0, 2.0, 5.0, 10.0,
];

impl Metrics {
    /// Registers every metric.
    ///
    /// # Panics
    /// Never: names are unique and well formed, and each has its help, which a test shows.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let labels = ["outcome", "surface"];
        let total = |outcome: Outcome| {
            IntCounter::new(outcome.label(), "All surfaces.").expect("the name is well formed")
        };
        let metrics = Self {
            offered: counter(r, "offered_requests_total"),
            requests: register(r, IntCounterVec::new(opts("requests_total"), &labels)),
            ended: Outcome::ALL.map(total),
            refused: counter_vec(r, "refused_total", "reason"),
            in_flight: gauge(r, "in_flight"),
            concurrency_limit: gauge(r, "concurrency_limit"),
            queue_depth: gauge(r, "queue_depth"),
            abandoned_texts: counter(r, "abandoned_texts_total"),
            batch_size: histogram(r, "batch_size", &powers_of_two(0, 10)),
            batch_tokens: histogram(r, "batch_tokens", &powers_of_two(2, 14)),
            tokenize_seconds: histogram(r, "tokenize_seconds", &SECONDS),
            queue_seconds: histogram(r, "queue_seconds", &SECONDS),
            compute_seconds: histogram(r, "compute_seconds", &SECONDS),
            request_seconds: histogram(r, "request_seconds", &SECONDS),
            engine_failures: counter(r, "engine_failures_total"),
            engine_busy: register(r, Counter::with_opts(opts("engine_busy_seconds_total"))),
            startup_seconds: register(r, GaugeVec::new(opts("startup_seconds"), &["phase"])),
            ready: gauge(r, "ready"),
            trace_spans: counter_vec(r, "trace_spans_total", "outcome"),
            reloads: counter_vec(r, "reloads_total", "outcome"),
            connections: register(r, IntGaugeVec::new(opts("connections"), &["port"])),
            connections_refused: counter_vec(r, "connections_refused_total", "port"),
            registry,
        };
        register(&metrics.registry, Ok(LOG_LINES_DROPPED.clone()));
        metrics.touch();
        metrics
    }

    /// Creates every series with known labels, so that none is absent from the first scrape.
    fn touch(&self) {
        self.declare(SurfaceLabel::KAFKA);
        for reason in REASONS {
            self.refused.with_label_values(&[reason]);
        }
        for outcome in ["done", "failed"] {
            self.reloads.with_label_values(&[outcome]);
        }
        for outcome in ["exported", "dropped"] {
            self.trace_spans.with_label_values(&[outcome]);
        }
        for port in ["main", "admin"] {
            self.connections.with_label_values(&[port]);
            self.connections_refused.with_label_values(&[port]);
        }
        self.startup_seconds.with_label_values(&["total"]);
    }

    /// Makes the series of a surface, so that none is absent from the first scrape.
    pub fn declare(&self, surface: SurfaceLabel) {
        for outcome in Outcome::ALL {
            self.requests
                .with_label_values(&[outcome.label(), surface.label()]);
        }
    }

    /// The number of requests with this outcome, for all surfaces together.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome as usize].get()
    }

    /// Counts a request that ended.
    pub fn end(&self, surface: SurfaceLabel, outcome: Outcome) {
        self.requests
            .with_label_values(&[outcome.label(), surface.label()])
            .inc();
        self.ended[outcome as usize].inc();
    }

    /// The registry, for further metrics of the process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The content type and the Prometheus text exposition of all metrics.
    pub fn render(&self) -> (String, Vec<u8>) {
        let encoder = TextEncoder::new();
        let mut text = Vec::with_capacity(8 << 10);
        encoder
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail, and every metric has a value");
        (encoder.format_type().to_owned(), text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn powers_of_two(first: i32, last: i32) -> Vec<f64> {
    (first..=last)
        .map(|exponent| f64::from(exponent).exp2())
        .collect()
}

/// Registers a metric under a name that is not taken yet.
pub(crate) fn register<T: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<T>,
) -> T {
    let metric = metric.expect("the name is well formed");
    registry
        .register(Box::new(metric.clone()))
        .expect("the name is unique");
    metric
}

/// The full name and help text of a metric.
fn opts(name: &str) -> Opts {
    opts_from(&HELP, name)
}

/// Like [`opts`], with the help text from `help`.
fn opts_from(help: &[(&str, &str)], name: &str) -> Opts {
    let (_, help) = help
        .iter()
        .find(|(known, _)| *known == name)
        .expect("each metric has its line in HELP");
    Opts::new(format!("intentd_{name}"), *help)
}

fn gauge(registry: &Registry, name: &str) -> IntGauge {
    int_gauge_from(registry, &HELP, name)
}

/// Registers an integer gauge with its help text from `help`.
pub(crate) fn int_gauge_from(registry: &Registry, help: &[(&str, &str)], name: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(opts_from(help, name)))
}

/// Registers a gauge with its help text from `help`.
pub(crate) fn gauge_from(registry: &Registry, help: &[(&str, &str)], name: &str) -> Gauge {
    register(registry, Gauge::with_opts(opts_from(help, name)))
}

fn counter(registry: &Registry, name: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(name)))
}

fn counter_vec(registry: &Registry, name: &str, label: &str) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(name), &[label]))
}

fn histogram(registry: &Registry, name: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::from(opts(name)).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(opts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_first_scrape() {
        let metrics = Metrics::new();
        metrics.declare(SurfaceLabel::new("predict"));
        let (_, text) = metrics.render();
        let text = String::from_utf8(text).unwrap();
        for series in [
            "intentd_requests_total{outcome=\"answered\",surface=\"predict\"} 0",
            "intentd_requests_total{outcome=\"abandoned\",surface=\"kafka\"} 0",
            "intentd_offered_requests_total 0",
            "intentd_refused_total{reason=\"concurrency\"} 0",
            "intentd_refused_total{reason=\"overload\"} 0",
            "intentd_reloads_total{outcome=\"failed\"} 0",
            "intentd_connections{port=\"main\"} 0",
            "intentd_in_flight 0",
            "intentd_log_lines_dropped_total 0",
            "intentd_queue_depth 0",
            "intentd_batch_size_count 0",
            "intentd_queue_seconds_count 0",
            "intentd_ready 0",
            "intentd_engine_busy_seconds_total 0",
            "intentd_startup_seconds{phase=\"total\"} 0",
        ] {
            assert!(
                text.lines().any(|line| line == series),
                "{series} is missing from\n{text}"
            );
        }
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.clone().count() > 40);
        assert!(samples.clone().all(|line| line.starts_with("intentd_")));
    }
}
