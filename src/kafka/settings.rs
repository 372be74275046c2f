//! Settings for reading topics. They do not depend on librdkafka.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, Uri};

/// How to connect and log in to the brokers.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// The bootstrap brokers: `host:port`, separated by commas.
    pub brokers: String,
    /// How the connection is secured.
    pub security: Security,
    /// The login, if [`security`](Self::security) includes one.
    pub credentials: Option<Credentials>,
    /// PEM file of the authorities for brokers' certificates; the system's authorities when `None`.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate and its key, if brokers require one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Further settings of librdkafka. They override the other fields.
    pub properties: Vec<(String, String)>,
}

impl std::fmt::Debug for Connection {
    /// Omits the values of properties, which may be passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("brokers", &self.brokers)
            .field("security", &self.security)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The SASL mechanism.
    pub mechanism: Mechanism,
    /// The username.
    pub username: String,
    /// The file with the password; a newline at its end is not part of it.
    pub password_file: PathBuf,
}

/// How connections to brokers are secured (`security.protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Security {
    /// No TLS, no login.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// A login without TLS. With PLAIN, the password is readable on the network.
    SaslPlaintext,
    /// A login over TLS.
    SaslSsl,
}

impl Security {
    /// Whether brokers require a login.
    pub fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// The name in librdkafka's settings.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

/// How a client proves its password (`sasl.mechanism`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mechanism {
    /// Sends the password.
    #[default]
    Plain,
    /// SCRAM with SHA-256 (RFC 7677).
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

impl Mechanism {
    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How partitions are assigned to the members of a group (`group.protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GroupProtocol {
    /// By the group's leader: any version of Kafka.
    #[default]
    Classic,
    /// By the broker (KIP-848): Kafka 4.0 and later.
    Consumer,
}

/// Where a group without committed offsets begins (`auto.offset.reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Start {
    /// At the oldest record.
    #[default]
    Earliest,
    /// At the end: only new records are read.
    Latest,
}

/// Settings of a consumer group that reads topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// The brokers.
    pub connection: Connection,
    /// The topics to read.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// How partitions are assigned to its members.
    pub protocol: GroupProtocol,
    /// Where the group begins.
    pub start: Start,
    /// The limit of records in flight; what two batches hold when `None`.
    pub in_flight_max: Option<usize>,
    /// The topic for predictions, if any.
    pub results_topic: Option<String>,
    /// The topic for records that cannot be classified, if any.
    pub dead_letter_topic: Option<String>,
}

/// How pauses between retries grow (Knative Eventing, `backoffPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RetryPolicy {
    /// Each pause is twice the one before; the first is twice the unit.
    #[default]
    Exponential,
    /// Each pause is longer than the one before by the unit.
    Linear,
}

/// Settings of a relay.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// The topics to read.
    pub source: SourceSettings,
    /// The URL to which records are POSTed.
    pub sink: Uri,
    /// The `Host` of requests, if it differs from the sink's address.
    pub host: Option<HeaderValue>,
    /// Time for a response.
    pub request_timeout: Duration,
    /// Whether the records of a partition are delivered one after the other.
    pub is_ordered: bool,
    /// Retries of a record.
    pub retry: u32,
    /// The unit of pauses between retries.
    pub retry_delay: Duration,
    /// How pauses grow.
    pub retry_policy: RetryPolicy,
    /// The limit of records in flight.
    pub in_flight: usize,
    /// The address for operators, if there is one.
    pub admin_address: Option<SocketAddr>,
    /// Time to finish after the signal to stop.
    pub drain_timeout: Duration,
}
