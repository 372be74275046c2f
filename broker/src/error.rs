//! The errors of a broker.

use std::time::Duration;

use rdkafka::error::KafkaError;

/// A broker cannot start, or a request to it failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// An error of librdkafka, on the broker's or the client's side.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// An invalid setting that would make librdkafka abort the process.
    #[error("{0}")]
    Setting(String),
    /// The gate's port or thread failed.
    #[error("the gate: {0}")]
    Gate(#[from] std::io::Error),
    /// The gate's certificates cannot be made.
    #[error("the gate's certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// The gate's TLS cannot be set up.
    #[error("the gate's TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The system gives no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// Not every record was acknowledged.
    #[error("{acknowledged} of {sent} records acknowledged; the first failure: {first:?}")]
    Unacknowledged {
        /// Records that the broker acknowledged.
        acknowledged: u64,
        /// Records that were sent.
        sent: u64,
        /// The first failure, if any was reported.
        first: Option<KafkaError>,
    },
    /// Not all records of a topic arrived in time.
    #[error("{read} of {expected} records within {within:?}; the last failure: {last:?}")]
    Late {
        /// Records that arrived.
        read: usize,
        /// Records that the topic has.
        expected: i64,
        /// The time limit.
        within: Duration,
        /// librdkafka's last error.
        last: Option<KafkaError>,
    },
}
