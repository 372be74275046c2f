//! What a broker is to be.

use std::fmt;
use std::time::Duration;

/// A broker's settings; the default is one without topics and without a gate.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Topics that exist from the start, with their numbers of partitions.
    pub topics: Vec<(String, i32)>,
    /// What stands in front of the broker; without it, clients speak to it in plain text.
    pub gate: Option<Gate>,
    /// How fast groups of consumers are.
    pub group: GroupTimings,
    /// How [`Broker::produce`](crate::Broker::produce) compresses.
    pub compression: Compression,
}

impl Settings {
    /// One topic and no gate.
    #[must_use]
    pub fn topic(name: &str, partitions: i32) -> Self {
        Self {
            topics: vec![(name.to_owned(), partitions)],
            ..Self::default()
        }
    }

    /// The same behind `gate`.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }
}

/// What clients have to speak, under Kafka's names.
#[derive(Debug, Clone)]
pub enum Gate {
    /// TLS.
    Ssl,
    /// A login in plain text.
    SaslPlaintext(Login),
    /// A login through TLS.
    SaslSsl(Login),
}

impl Gate {
    /// The value of librdkafka's `security.protocol`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Ssl => "SSL",
            Self::SaslPlaintext(_) => "SASL_PLAINTEXT",
            Self::SaslSsl(_) => "SASL_SSL",
        }
    }

    pub(crate) fn has_tls(&self) -> bool {
        match self {
            Self::Ssl | Self::SaslSsl(_) => true,
            Self::SaslPlaintext(_) => false,
        }
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        match self {
            Self::Ssl => None,
            Self::SaslPlaintext(login) | Self::SaslSsl(login) => Some(login),
        }
    }
}

/// The one login that a gate lets through.
#[derive(Clone)]
pub struct Login {
    /// How clients prove that they know the password.
    pub mechanism: Mechanism,
    /// Printable ASCII: the gate does not prepare names as RFC 4013 asks.
    pub username: String,
    /// Printable ASCII, as the name.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the password.
        f.debug_struct("Login")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A mechanism of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself, RFC 4616.
    Plain,
    /// A proof of it with SHA-256, RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// Its registered name, the value of librdkafka's `sasl.mechanism`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Times that decide how soon a group of consumers has its partitions.
#[derive(Debug, Clone)]
pub struct GroupTimings {
    /// How long the first member of a classic group waits for others: none here, 3 s in the mock.
    pub initial_rebalance_delay: Duration,
    /// How often members of a KIP-848 group report; they learn their partitions by that.
    pub heartbeat: Duration,
    /// How long a silent member of a KIP-848 group keeps its partitions.
    pub session_timeout: Duration,
}

impl Default for GroupTimings {
    /// Joining and leaving take 0.1 to 0.5 s so.
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::ZERO,
            heartbeat: Duration::from_millis(200),
            session_timeout: Duration::from_millis(1500),
        }
    }
}

/// The compression of batches of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard: most of all fits in the 5 MiB of a partition.
    #[default]
    Zstd,
}

impl Compression {
    /// The value of librdkafka's `compression.type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
