//! The errors of a server, at its start and while it runs.

use std::time::Duration;

use crate::api::KeysError;
use crate::serving::EngineStopped;
use crate::transport::{BindError, TlsError};

/// A server did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The engine's thread cannot be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The model cannot be loaded, or the engine failed.
    #[error(transparent)]
    Engine(#[from] EngineStopped),
    /// Spans cannot be sent to the collector.
    #[error("--otlp-endpoint: {0}")]
    Collector(String),
    /// Kafka cannot be read with these settings.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] crate::kafka::ClientError),
    /// This process cannot read Kafka any more.
    #[error("Kafka cannot be read any more: {0}")]
    Unreadable(String),
    /// Admitted requests did not finish in time.
    #[error("requests were still unanswered {0:?} after the signal to stop (--drain-timeout)")]
    DrainTimeout(Duration),
}

impl ServerError {
    /// Whether the engine failed while it served. A new process may recover.
    pub fn is_engine_lost(&self) -> bool {
        use EngineStopped::{Engine, PanickedServing, Stuck};
        matches!(self, Self::Engine(Engine(_) | PanickedServing | Stuck(_)))
    }
}
