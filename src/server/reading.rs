//! What a server reads by itself beside what it is asked: topics of Kafka, where the program knows of them.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ServerError;
use crate::config::Config;
#[cfg(feature = "kafka")]
use crate::events::Source;
use crate::serving::Classifier;

/// What is being read, if anything is.
#[derive(Debug, Default)]
pub(super) struct Reading {
    #[cfg(feature = "kafka")]
    source: Option<Source>,
}

#[cfg(feature = "kafka")]
impl Reading {
    /// Begins to read what `config` names.
    ///
    /// # Errors
    /// When the settings make no sense.
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

    /// Ready when it cannot be read any more until another process tries.
    pub(super) fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let failed = self.source.as_ref().map(Source::failed);
        async {
            match failed {
                Some(failed) => failed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Leaves what is read to others, at once, since nobody has to notice first. What is under way is finished
    /// until `deadline`, unless nobody answers any more.
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
impl Reading {
    /// Nothing is read: flags that ask for it are refused.
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
