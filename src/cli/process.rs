//! What commands that serve have in common: their log and their end.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::LogFormat;

/// Logs to standard error what `filter` lets through.
pub(super) fn start_logging(filter: &str, format: LogFormat) {
    // h2 would log paths that it cannot read, and paths hold texts.
    let filter = format!("{filter},h2=info");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let color = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Saying that a message cannot be written needs the same place, and panics when it is full.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(color).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Ready when the process is told to end. Told again, it ends at once.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let first = either(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first, "told to end");
        tokio::spawn(async move {
            let second = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = second, "told to end again; ending now");
            end_now(128 + second);
        });
    })
}

/// The number of the signal that comes first.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

/// As a shell reports a process that a signal ended.
#[expect(clippy::exit, reason = "whoever signals twice wants no more waiting")]
fn end_now(code: i32) -> ! {
    std::process::exit(code)
}
