//! Replaces the model, the certificates and the keys while the server runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::ServerError;
use super::loader::ModelLoader;
use crate::api::Keys;
use crate::config::Config;
use crate::error::Refusal;
use crate::serving::{Classifier, ReloadError};
use crate::transport::{Life, Tls};
use intentd_base::LogThrottle;

/// Interval of checks for new certificates and keys. Kubernetes replaces mounted secrets without a signal, up to
/// a minute late.
const CHECK: Duration = Duration::from_secs(10);

/// The keys and certificates of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct ReloadableFiles {
    keys: Option<Arc<Keys>>,
    tls: Option<Arc<Tls>>,
}

impl ReloadableFiles {
    pub(super) fn open(config: &Config) -> Result<Self, ServerError> {
        let keys = config.api_keys.as_deref().map(Keys::open).transpose()?;
        let tls = config.tls.as_ref();
        let tls = tls
            .map(|files| Tls::open(&files.certificates, &files.key))
            .transpose()?;
        Ok(Self {
            keys: keys.map(Arc::new),
            tls: tls.map(Arc::new),
        })
    }

    /// Reads the files again, outside of the runtime because their disk may be slow. Returns the errors of files that
    /// keep their old content.
    async fn reload(&self) -> Vec<String> {
        let files = self.clone();
        let outcome = tokio::task::spawn_blocking(move || files.reload_now()).await;
        outcome.unwrap_or_else(|error| vec![error.to_string()])
    }

    fn reload_now(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut take = |what: &str, outcome: Result<bool, String>| match outcome {
            Ok(false) => {}
            Ok(true) => tracing::info!("{what} replaced"),
            Err(mistake) => mistakes.push(mistake),
        };
        if let Some(keys) = &self.keys {
            take("keys", keys.reload().map_err(|error| error.to_string()));
        }
        if let Some(tls) = &self.tls {
            take(
                "certificates",
                tls.reload().map_err(|error| error.to_string()),
            );
        }
        mistakes
    }
}

/// Reloads the model, the certificates and the keys of a running server.
#[derive(Clone)]
pub struct Reloader {
    classifier: Arc<Classifier>,
    load: ModelLoader,
    files: ReloadableFiles,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Reloader {
    pub(super) fn new(
        classifier: Arc<Classifier>,
        load: ModelLoader,
        files: ReloadableFiles,
    ) -> Self {
        Self {
            classifier,
            load,
            files,
        }
    }

    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        self.files.keys.clone()
    }

    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.files.tls.clone()
    }

    /// Reloads certificates, keys and the model. What cannot be loaded stays as it is.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] when the server cannot reload now, [`Refusal::Reload`] with all mistakes.
    pub async fn reload(&self) -> Result<(), Refusal> {
        let mut mistakes = self.files.reload().await;
        let load = Arc::clone(&self.load);
        match self.classifier.reload(move || load()).await {
            Ok(()) => {}
            Err(error @ (ReloadError::Phase(_) | ReloadError::Busy)) => {
                if !mistakes.is_empty() {
                    tracing::error!(what = mistakes.join("; "), "files not replaced");
                }
                // Clients may ask again and again during a reload.
                static BUSY: LogThrottle = LogThrottle::new();
                if let Some(times) = BUSY.event() {
                    tracing::error!(%error, times, "not reloaded");
                }
                return Err(Refusal::Conflict(error.to_string()));
            }
            Err(error) => mistakes.push(error.to_string()),
        }
        if mistakes.is_empty() {
            return Ok(());
        }
        let what = mistakes.join("; ");
        tracing::error!(what, "reload failed");
        Err(Refusal::Reload(what))
    }

    /// Watches certificates and keys until the server closes.
    pub(super) async fn watch(self, mut life: watch::Receiver<Life>) {
        let files = &self.files;
        if files.keys.is_none() && files.tls.is_none() {
            return;
        }
        let mut known = Vec::new();
        loop {
            let closing = Life::closing(&mut life);
            if tokio::time::timeout(CHECK, closing).await.is_ok() {
                return;
            }
            let mistakes = tokio::select! {
                mistakes = files.reload() => mistakes,
                () = Life::closing(&mut life) => return,
            };
            // The same mistakes are logged once.
            if !mistakes.is_empty() && mistakes != known {
                tracing::error!(what = mistakes.join("; "), "files not replaced");
            }
            known = mistakes;
        }
    }
}
