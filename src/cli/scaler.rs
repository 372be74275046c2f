//! `intentd scaler`: the process of the external scaler.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{Failure, without_mistakes};
use super::log;
use super::shutdown::stop_signal;
use crate::config::ScalerArgs;
use crate::scaler::{self, Certificates, ScalerError};

/// DNS lookups and requests to Kafka in flight: each takes a thread.
const BLOCKING_THREADS: usize = 32;

/// Serves until SIGTERM or SIGINT; SIGHUP reloads certificates.
pub(super) fn run(args: ScalerArgs, mistakes: Vec<String>) -> Result<(), Failure> {
    let (filter, format) = (args.log.clone(), args.log_format);
    let config = without_mistakes(args.checked(), mistakes)?;
    log::start(&filter, format);
    // One thread is enough: the scaler waits for answers most of the time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // First of all, so that an early signal is not lost.
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
        tokio::spawn(reload_certificates_on(reload, running.certificates.clone()));
        running.until(stop).await.map_err(Failure::from)
    });
    // A lookup that hangs must not delay the exit.
    runtime.shutdown_background();
    result
}

async fn reload_certificates_on(mut signal: Signal, certificates: Certificates) {
    while signal.recv().await.is_some() {
        match certificates.reload().await {
            Ok(_) => tracing::info!("reloaded (SIGHUP)"),
            Err(error) => tracing::error!(%error, "certificates not replaced"),
        }
    }
}
