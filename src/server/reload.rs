//! What can be replaced while the server runs: the model, the certificates, the keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Load, ServerError};
use crate::api::Keys;
use crate::config::Config;
use crate::error::Refusal;
use crate::seldom::Seldom;
use crate::serving::{Classifier, ReloadError};
use crate::transport::{Life, Tls};

/// How often certificates and keys are looked at: Kubernetes replaces mounted secrets without a
/// signal, itself up to a minute late.
const LOOK: Duration = Duration::from_secs(10);

/// The small files that a server reads beside its model.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    keys: Option<Arc<Keys>>,
    tls: Option<Arc<Tls>>,
}

impl Files {
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

    /// Reads them again; what is wrong with those that stay as they were. Not on the runtime: what they
    /// lie on may take its time.
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

/// Loads again what a running server uses.
#[derive(Clone)]
pub struct Reloader {
    classifier: Arc<Classifier>,
    load: Load,
    files: Files,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Reloader {
    pub(super) fn new(classifier: Arc<Classifier>, load: Load, files: Files) -> Self {
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

    /// Loads certificates, keys and the model again. Whatever cannot be used leaves what it should
    /// have replaced in use.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] when the server cannot reload now, [`Refusal::Reload`] with everything
    /// that is wrong.
    pub async fn reload(&self) -> Result<(), Refusal> {
        let mut mistakes = self.files.reload().await;
        let load = Arc::clone(&self.load);
        match self.classifier.reload(move || load()).await {
            Ok(()) => {}
            Err(error @ (ReloadError::Phase(_) | ReloadError::Busy)) => {
                if !mistakes.is_empty() {
                    tracing::error!(what = mistakes.join("; "), "files not replaced");
                }
                // Whoever asks again and again while a reload is under way.
                static BUSY: Seldom = Seldom::new();
                if let Some(times) = BUSY.now() {
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

    /// Looks after certificates and keys until the server closes.
    pub(super) async fn watch(self, mut life: watch::Receiver<Life>) {
        let files = &self.files;
        if files.keys.is_none() && files.tls.is_none() {
            return;
        }
        let mut known = Vec::new();
        loop {
            let closing = life.wait_for(|life| *life == Life::Closing);
            if tokio::time::timeout(LOOK, closing).await.is_ok() {
                return;
            }
            let mistakes = tokio::select! {
                mistakes = files.reload() => mistakes,
                _ = life.wait_for(|life| *life == Life::Closing) => return,
            };
            // What stays wrong is said once.
            if !mistakes.is_empty() && mistakes != known {
                tracing::error!(what = mistakes.join("; "), "files not replaced");
            }
            known = mistakes;
        }
    }
}
