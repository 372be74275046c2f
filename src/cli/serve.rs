//! `intentd serve`: the life of the server process.

use std::io::IsTerminal;

use super::Failure;
use crate::config::{Config, LogFormat, ServeArgs};
use crate::server;

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    let (log, format) = (args.log.clone(), args.log_format);
    let config = Config::from_environment(args).map_err(Failure::usage)?;
    start_logging(&log, format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Listening for signals before anything else: one that comes early must not be lost.
        let stop = stop_signal()?;
        let running = server::start(&config).await?;
        tracing::info!(address = %running.address, "serving predictions");
        if let Some(address) = running.admin_address {
            tracing::info!(%address, "serving metrics and health");
        }
        Ok(running.until(stop).await?)
    })
}

fn start_logging(filter: &str, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let color = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(color).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Ready when the process is told to end.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
