//! What has to be known to read a topic. Nothing here needs the client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, Uri};

/// How to reach the brokers, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// How the connection is secured.
    pub security: Security,
    /// Who logs in, where [`security`](Self::security) asks for that.
    pub credentials: Option<Credentials>,
    /// PEM file of the authorities that brokers' certificates are checked by; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate and its key, where brokers ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Further settings of librdkafka; they win over what is said here.
    pub properties: Vec<(String, String)>,
}

impl std::fmt::Debug for Connection {
    /// Without the values of properties, which may be passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("brokers", &self.brokers)
            .field("security", &self.security)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The file with the password; a newline at its end does not belong to it.
    pub password_file: PathBuf,
}

/// How connections to brokers are secured (`security.protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Security {
    /// Not at all.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// A login without TLS: the password can be read on the way with PLAIN.
    SaslPlaintext,
    /// A login over TLS.
    SaslSsl,
}

impl Security {
    /// Whether brokers ask for a login.
    pub fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// librdkafka's word for it.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

/// How a password is proved (`sasl.mechanism`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mechanism {
    /// By sending it.
    #[default]
    Plain,
    /// By SCRAM with SHA-256 (RFC 7677).
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// By SCRAM with SHA-512.
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

impl Mechanism {
    /// The word for it in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How the members of a group share the partitions (`group.protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GroupProtocol {
    /// By a member that leads: any version of Kafka.
    #[default]
    Classic,
    /// By the broker (KIP-848): Kafka 4.0 and later.
    Consumer,
}

/// Where a group begins that has committed nothing yet (`auto.offset.reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Start {
    /// At the oldest record that there is.
    #[default]
    Earliest,
    /// At what is written from then on.
    Latest,
}

/// What is read and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// The brokers.
    pub connection: Connection,
    /// Topics that are read.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// How its members share the partitions.
    pub protocol: GroupProtocol,
    /// Where it begins.
    pub start: Start,
    /// Records that are worked on at once; what two batches hold when `None`.
    pub in_flight_max: Option<usize>,
    /// The topic that predictions are written to, if any.
    pub results_topic: Option<String>,
    /// The topic that records are written to which cannot be classified, if any.
    pub dead_letter_topic: Option<String>,
}

/// How pauses between tries grow (Knative Eventing, `backoffPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RetryPolicy {
    /// Each is twice the one before, and the first twice the unit.
    #[default]
    Exponential,
    /// Each is longer by the unit.
    Linear,
}

/// What is read and where it is delivered.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// What is read.
    pub source: SourceSettings,
    /// Where records are POSTed.
    pub sink: Uri,
    /// The name that requests are for, if it is not that of the sink's address.
    pub host: Option<HeaderValue>,
    /// Time for an answer.
    pub request_timeout: Duration,
    /// Times that a record is tried again.
    pub retry: u32,
    /// The unit of pauses.
    pub retry_delay: Duration,
    /// How pauses grow.
    pub retry_policy: RetryPolicy,
    /// Records that are delivered at once.
    pub in_flight: usize,
    /// Where operators look, if anywhere.
    pub admin_address: Option<SocketAddr>,
    /// Time from the signal to stop to the end.
    pub drain_timeout: Duration,
}
