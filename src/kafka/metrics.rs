//! The metrics of a Kafka reader. A server without one does not register them.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::metrics::register;

/// The metrics of a reader.
#[derive(Debug, Clone)]
pub struct KafkaMetrics {
    /// Finished records, in the order of [`RecordOutcome`].
    records: [IntCounter; 3],
    /// Records in flight.
    pub in_flight: IntGauge,
    /// Assigned partitions.
    pub partitions: IntGauge,
    /// Records that are written and not finished, by topic and partition.
    pub lag: IntGaugeVec,
    /// The sum of these over all assigned partitions.
    pub lag_total: IntGauge,
    /// Age of the oldest unfinished record in seconds.
    pub lag_seconds: Gauge,
    /// 1 when brokers answer, else 0.
    pub connected: IntGauge,
    /// 1 while reading pauses because enough records are in flight.
    pub paused: IntGauge,
    /// Times that partitions were assigned or revoked.
    pub rebalances: IntCounter,
    /// Records that retention removed before they were read.
    pub expired: IntCounter,
    /// Errors, by operation.
    errors: IntCounterVec,
}

/// How a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordOutcome {
    /// Classified, or accepted by the sink.
    Done,
    /// Written to the dead-letter topic.
    DeadLettered,
    /// Counted and skipped, because there is no dead-letter topic.
    Dropped,
}

impl RecordOutcome {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Done, "done"),
        (Self::DeadLettered, "dead_letter"),
        (Self::Dropped, "dropped"),
    ];
}

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailedOperation {
    /// Reaching the brokers, logging in, or reading.
    Read,
    /// Committing offsets.
    Commit,
    /// Writing predictions or dead letters.
    Write,
    /// Delivering to the sink.
    Deliver,
}

impl FailedOperation {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Read, "read"),
        (Self::Commit, "commit"),
        (Self::Write, "write"),
        (Self::Deliver, "deliver"),
    ];
}

impl KafkaMetrics {
    /// Registers the metrics.
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
            records: RecordOutcome::ALL.map(|(_, name)| records.with_label_values(&[name])),
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
            expired: register(
                r,
                IntCounter::with_opts(opts(
                    "expired_records_total",
                    "Records that retention removed before they were read.",
                )),
            ),
            errors: counters("errors_total", "Errors by what failed.", "operation"),
        };
        for (_, name) in FailedOperation::ALL {
            metrics.errors.with_label_values(&[name]);
        }
        metrics
    }

    /// Counts a record that is finished.
    pub(super) fn count_record(&self, outcome: RecordOutcome) {
        self.records[outcome as usize].inc();
    }

    /// Counts an error.
    pub(super) fn count_error(&self, operation: FailedOperation) {
        let (_, name) = FailedOperation::ALL[operation as usize];
        self.errors.with_label_values(&[name]).inc();
    }
}
