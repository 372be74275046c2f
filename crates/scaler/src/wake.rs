//! Wake signals: evidence of work that does not come from a replica. Without a replica there is no other.

use std::time::Duration;

use super::consumer_group::ConsumerGroup;
#[cfg(feature = "kafka")]
use super::lag::LagReader;
use super::prometheus::{PrometheusUrl, QueryReader};

/// Time for a response. It is longer than that for a replica, since a query may take longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a wake signal is read. The threshold is not part of it, since each trigger has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WakeSource {
    /// A query to Prometheus, or to any server with its API.
    Prometheus {
        /// The server.
        server: PrometheusUrl,
        /// A query with one number as its result.
        query: String,
    },
    /// The lag of a consumer group.
    Kafka(ConsumerGroup),
}

/// Reads one wake signal.
#[derive(Debug)]
pub(super) enum WakeReader {
    Prometheus(Box<QueryReader>),
    #[cfg(feature = "kafka")]
    Kafka(LagReader),
}

impl WakeReader {
    pub(super) fn new(source: &WakeSource) -> Self {
        match source {
            WakeSource::Prometheus { server, query } => {
                Self::Prometheus(Box::new(QueryReader::new(server, query)))
            }
            #[cfg(feature = "kafka")]
            WakeSource::Kafka(group) => Self::Kafka(LagReader::new(group.clone(), TIMEOUT)),
            #[cfg(not(feature = "kafka"))]
            WakeSource::Kafka(_) => unreachable!("refused where triggers are read"),
        }
    }

    /// The value now.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) async fn read(&mut self) -> Result<f64, String> {
        match self {
            Self::Prometheus(query) => {
                let value = query.read(TIMEOUT).await;
                value.map_err(|why| format!("Prometheus: {why}"))
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(group) => {
                let lag = group.lag().await;
                lag.map_err(|why| format!("Kafka: {why}"))
            }
        }
    }
}
