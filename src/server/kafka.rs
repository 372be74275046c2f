//! Input that a server fetches itself: topics of Kafka, if the program is built with it.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::ServerError;
use crate::config::Config;
#[cfg(feature = "kafka")]
use crate::kafka::Source;
use crate::serving::Classifier;

/// The topics that are being read, if any.
#[derive(Debug, Default)]
pub(super) struct KafkaInput {
    #[cfg(feature = "kafka")]
    source: Option<Source>,
}

#[cfg(feature = "kafka")]
impl KafkaInput {
    /// Begins to read the topics that `config` names.
    ///
    /// # Errors
    /// When the settings are invalid.
    pub(super) fn start(
        config: &Config,
        classifier: &Arc<Classifier>,
    ) -> Result<Self, ServerError> {
        let surfaces = &config.surfaces;
        let events = (&surfaces.events, surfaces.body.bytes_max);
        let start = |settings| Source::start(settings, events, classifier);
        let source = config.kafka.as_ref().map(start).transpose()?;
        Ok(Self { source })
    }

    /// Ready with the reason when this process cannot read any more.
    pub(super) fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let failed = self.source.as_ref().map(Source::failed);
        async {
            match failed {
                Some(failed) => failed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Leaves the consumer group at once: no load balancer has to notice first. Records in flight are finished until
    /// `deadline`, or abandoned if the engine does not answer any more.
    pub(super) fn stop(self, deadline: Instant, is_answering: bool) -> Option<JoinHandle<()>> {
        let deadline = if is_answering {
            deadline
        } else {
            Instant::now()
        };
        let stop = |source: Source| tokio::spawn(source.stop(deadline.into_std()));
        self.source.map(stop)
    }
}

#[cfg(not(feature = "kafka"))]
impl KafkaInput {
    /// Nothing is read; flags that ask for it are refused.
    pub(super) fn start(_: &Config, _: &Arc<Classifier>) -> Result<Self, ServerError> {
        Ok(Self {})
    }

    /// Never ready.
    pub(super) fn failed(&self) -> std::future::Pending<String> {
        std::future::pending()
    }

    /// There is nothing to stop.
    pub(super) fn stop(self, _: Instant, _: bool) -> Option<JoinHandle<()>> {
        None
    }
}
