//! The certificates of the scaler's port, and their replacement at run time.

use std::sync::Arc;
use std::time::Duration;

use intentd_transport::Tls;

/// Interval at which the files are checked: Kubernetes replaces mounted secrets without a signal.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The certificates of a running scaler, if it has any.
#[derive(Debug, Clone)]
pub struct Certificates(Option<Arc<Tls>>);

impl Certificates {
    pub(super) fn new(tls: Option<Arc<Tls>>) -> Self {
        Self(tls)
    }

    /// Reads the files again, off the runtime, and returns whether they changed. The certificates in use
    /// stay when the new ones are invalid.
    ///
    /// # Errors
    /// The text of a [`TlsError`](intentd_transport::TlsError).
    pub async fn reload(&self) -> Result<bool, String> {
        let Some(tls) = self.0.clone() else {
            return Ok(false);
        };
        let outcome = tokio::task::spawn_blocking(move || tls.reload()).await;
        match outcome {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }

    /// Reloads the files periodically; never returns.
    pub(super) async fn reload_periodically(self) {
        let mut known = None;
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let outcome = self.reload().await;
            match &outcome {
                Ok(true) => tracing::info!("certificates replaced"),
                // An error that persists is logged once.
                Err(what) if known.as_ref() != Some(what) => {
                    tracing::error!(what, "certificates not replaced");
                }
                _ => {}
            }
            known = outcome.err();
        }
    }
}
