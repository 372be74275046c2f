//! What commands that serve have in common: their end.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::log;

/// What whoever signals twice waits for the last lines of the log.
const LAST_LINES: Duration = Duration::from_millis(100);

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
            log::flush(LAST_LINES);
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
