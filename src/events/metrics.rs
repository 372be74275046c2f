//! What a reader of Kafka publishes. Only where there is one, so that a server without has none of it.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::metrics::register;

/// The metrics of a reader.
#[derive(Debug, Clone)]
pub struct KafkaMetrics {
    /// Records by what became of them, in the order of [`Fate`].
    records: [IntCounter; 3],
    /// Records that are worked on.
    pub in_flight: IntGauge,
    /// Partitions that are assigned.
    pub partitions: IntGauge,
    /// Records written and not finished, by topic and partition.
    pub lag: IntGaugeVec,
    /// The sum of these.
    pub lag_total: IntGauge,
    /// Age of the oldest unfinished record in seconds.
    pub lag_seconds: Gauge,
    /// 1 when brokers answer, else 0.
    pub connected: IntGauge,
    /// 1 while reading pauses because enough is under way.
    pub paused: IntGauge,
    /// Times that partitions were assigned or taken away.
    pub rebalances: IntCounter,
    /// Errors, by what failed.
    errors: IntCounterVec,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Done: classified, or taken by the sink.
    Done,
    /// Written to the topic of dead letters.
    Buried,
    /// Counted and passed over, since there is no such topic.
    Dropped,
}

impl Fate {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Done, "done"),
        (Self::Buried, "dead_letter"),
        (Self::Dropped, "dropped"),
    ];
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// To reach the brokers, to log in, to read.
    Read,
    /// To commit offsets.
    Commit,
    /// To write predictions or dead letters.
    Write,
    /// To deliver to the sink.
    Deliver,
}

impl Trouble {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Read, "read"),
        (Self::Commit, "commit"),
        (Self::Write, "write"),
        (Self::Deliver, "deliver"),
    ];
}

impl KafkaMetrics {
    /// Registers them.
    pub fn new(r: &Registry) -> Self {
        let opts = |name: &str, help: &str| Opts::new(format!("intentd_kafka_{name}"), help);
        let gauge = |name, help| register(r, IntGauge::with_opts(opts(name, help)));
        let counters =
            |name, help, label| register(r, IntCounterVec::new(opts(name, help), &[label]));
        let records = counters(
            "records_total",
            "Records by what became of them.",
            "outcome",
        );
        let metrics = Self {
            records: Fate::ALL.map(|(_, name)| records.with_label_values(&[name])),
            in_flight: gauge("in_flight", "Records that are worked on."),
            partitions: gauge(
                "partitions",
                "Partitions that are assigned to this process.",
            ),
            lag: register(
                r,
                IntGaugeVec::new(
                    opts("partition_lag_records", "Records written and not finished."),
                    &["topic", "partition"],
                ),
            ),
            lag_total: gauge(
                "lag_records",
                "Records written and not finished, over the partitions assigned to this process.",
            ),
            lag_seconds: register(
                r,
                Gauge::with_opts(opts(
                    "lag_seconds",
                    "Age of the oldest record that is not finished; 0 for none.",
                )),
            ),
            connected: gauge("connected", "1 when brokers answer, else 0."),
            paused: gauge(
                "paused",
                "1 while reading pauses because enough is under way.",
            ),
            rebalances: register(
                r,
                IntCounter::with_opts(opts(
                    "rebalances_total",
                    "Times that partitions were assigned or taken away.",
                )),
            ),
            errors: counters("errors_total", "Errors by what failed.", "operation"),
        };
        for (_, name) in Trouble::ALL {
            metrics.errors.with_label_values(&[name]);
        }
        metrics
    }

    /// Counts a record that is finished.
    pub(super) fn end(&self, fate: Fate) {
        self.records[fate as usize].inc();
    }

    /// Counts an error.
    pub(super) fn fail(&self, trouble: Trouble) {
        let (_, name) = Trouble::ALL[trouble as usize];
        self.errors.with_label_values(&[name]).inc();
    }
}
