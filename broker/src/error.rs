//! What can go wrong with a broker.

use std::time::Duration;

use rdkafka::error::KafkaError;

/// Why a broker, or what it was asked for, is not there.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// librdkafka, the broker's side or the client's.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A setting that librdkafka would take and end the process over.
    #[error("{0}")]
    Setting(String),
    /// The gate's port or its thread.
    #[error("the gate: {0}")]
    Gate(#[from] std::io::Error),
    /// The gate's certificates.
    #[error("the gate's certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// The gate's TLS.
    #[error("the gate's TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The system gives no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// Not every record was acknowledged.
    #[error("{acknowledged} of {sent} records acknowledged; the first failure: {first:?}")]
    Unacknowledged {
        /// Records that the broker has.
        acknowledged: u64,
        /// Records that it was sent.
        sent: u64,
        /// The first one's failure, if any was reported.
        first: Option<KafkaError>,
    },
    /// Records that are there did not come in time.
    #[error("{read} of {expected} records within {within:?}; the last failure: {last:?}")]
    Late {
        /// Records that came.
        read: usize,
        /// Records that are there.
        expected: i64,
        /// The time they had.
        within: Duration,
        /// What librdkafka reported last.
        last: Option<KafkaError>,
    },
}
