//! The settings of a broker.

use std::fmt;
use std::time::Duration;

/// A broker's settings; the default is one without topics and without a gate.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Topics that exist from the start, with their numbers of partitions.
    pub topics: Vec<(String, i32)>,
    /// TLS and SASL in front of the broker; without a gate, clients use plain text.
    pub gate: Option<Gate>,
    /// The timing of consumer groups.
    pub group: GroupTimings,
    /// The compression of [`Broker::produce`](crate::Broker::produce).
    pub compression: Compression,
}

impl Settings {
    /// Settings with one topic and no gate.
    #[must_use]
    pub fn topic(name: &str, partitions: i32) -> Self {
        Self {
            topics: vec![(name.to_owned(), partitions)],
            ..Self::default()
        }
    }

    /// Sets the gate.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }
}

/// The security protocol of clients, under Kafka's names.
#[derive(Debug, Clone)]
pub enum Gate {
    /// TLS.
    Ssl,
    /// A login without TLS.
    SaslPlaintext(Login),
    /// A login over TLS.
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

/// The one login that a gate accepts.
#[derive(Clone)]
pub struct Login {
    /// The SASL mechanism.
    pub mechanism: Mechanism,
    /// The username, in printable ASCII: the gate does not implement the preparation of RFC 4013.
    pub username: String,
    /// The password, in printable ASCII.
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

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// The client sends the password (RFC 4616).
    Plain,
    /// SCRAM with SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// The registered name, the value of librdkafka's `sasl.mechanism`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Times that determine how soon a consumer group assigns partitions.
#[derive(Debug, Clone)]
pub struct GroupTimings {
    /// How long the first member of a classic group waits for others. 0 by default, 3 s in librdkafka's mock.
    pub initial_rebalance_delay: Duration,
    /// Interval of heartbeats in a KIP-848 group, by which members receive their partitions.
    pub heartbeat: Duration,
    /// How long a silent member of a KIP-848 group keeps its partitions.
    pub session_timeout: Duration,
}

impl Default for GroupTimings {
    /// With these, joining and leaving take 0.1 to 0.5 s.
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
    /// Zstandard, with which the most records fit into the 5 MiB of a partition.
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
