//! How commands that serve are told to stop.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::log;

/// Time for the last lines of the log after a second signal.
const LAST_LINES: Duration = Duration::from_millis(100);

/// A future that is ready at the first signal to stop. A second signal ends the process at once.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let first = first_of(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first, "told to end");
        tokio::spawn(async move {
            let second = first_of(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = second, "told to end again; ending now");
            log::flush(LAST_LINES);
            exit_now(128 + second);
        });
    })
}

/// The number of the signal that arrives first.
async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

/// Exits with the code that shells use for a process that a signal ended.
#[expect(clippy::exit, reason = "a second signal asks for no more waiting")]
fn exit_now(code: i32) -> ! {
    std::process::exit(code)
}
