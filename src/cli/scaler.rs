//! `intentd scaler`: the life of the external scaler's process.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::log;
use super::process::stop_signal;
use crate::config::{ConfigError, ScalerArgs};
use crate::scaler::{self, Certificates, Config, ScalerError};

/// Lookups of names and questions to Kafka at once: each takes a thread.
const BLOCKING_THREADS: usize = 32;

/// Serves until SIGTERM or SIGINT; SIGHUP reads certificates again.
pub(super) fn run(args: ScalerArgs, mut mistakes: Vec<String>) -> Result<(), Failure> {
    let (filter, format) = (args.log.clone(), args.log_format);
    let config = match (Config::new(args), mistakes.is_empty()) {
        (Ok(config), true) => config,
        (checked, _) => {
            mistakes.extend(checked.err().into_iter().flat_map(|ConfigError(more)| more));
            return Err(Failure::usage(ConfigError(mistakes)));
        }
    };
    log::start(&filter, format);
    // One thread: what there is to do is wait for answers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // Listening for signals before anything else: one that comes early must not be lost.
        let stop = stop_signal()?;
        let reload = signal(SignalKind::hangup())?;
        let running = scaler::start(&config).map_err(|error| match error {
            ScalerError::Tls(error) => Failure::usage(error),
            error => error.into(),
        })?;
        if let Some(address) = running.address {
            tracing::info!(%address, "serving KEDA");
        }
        if let Some(address) = running.admin_address {
            tracing::info!(%address, "serving metrics and health");
        }
        tokio::spawn(reload_on(reload, running.certificates.clone()));
        running.until(stop).await.map_err(Failure::from)
    });
    // A lookup that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn reload_on(mut signal: Signal, certificates: Certificates) {
    while signal.recv().await.is_some() {
        match certificates.reload().await {
            Ok(_) => tracing::info!("reloaded (SIGHUP)"),
            Err(error) => tracing::error!(%error, "certificates not replaced"),
        }
    }
}
