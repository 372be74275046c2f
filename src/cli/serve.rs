//! `intentd serve`: the life of the server process.

use std::io::IsTerminal;
use std::time::Duration;

use super::Failure;
use crate::config::{Config, LogFormat, ServeArgs};
use crate::server::{self, ServerError};

/// Exit code of a server whose engine broke, for which a restart helps: `EX_SOFTWARE` of sysexits.h.
const ENGINE_LOST: u8 = 70;

/// Time that a server whose engine broke has to end by itself.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    let (log, format) = (args.log.clone(), args.log_format);
    let config = Config::from_environment(args).map_err(Failure::usage)?;
    start_logging(&log, format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // Listening for signals before anything else: one that comes early must not be lost.
        let stop = stop_signal()?;
        let running = server::start(&config).await?;
        tracing::info!(address = %running.address, "serving predictions");
        if let Some(address) = running.admin_address {
            tracing::info!(%address, "serving metrics and health");
        }
        running.until(stop).await.map_err(failure)
    });
    // Tokenizations whose clients have left must not hold up the end.
    runtime.shutdown_background();
    result
}

fn failure(error: ServerError) -> Failure {
    let code = exit_code(&error);
    if code == ENGINE_LOST {
        std::thread::spawn(|| {
            std::thread::sleep(EXIT_TIMEOUT);
            // The driver's own work at exit may wait for a device that hangs.
            std::process::abort();
        });
    }
    Failure {
        code,
        ..Failure::from(error)
    }
}

fn exit_code(error: &ServerError) -> u8 {
    if error.is_engine_lost() {
        ENGINE_LOST
    } else {
        1
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineError, LoadError};
    use crate::serving::EngineStopped;

    #[test]
    fn a_lost_engine_has_an_exit_code_of_its_own() {
        let lost = EngineError::Lost("an illegal address".to_owned());
        let code = |stopped: EngineStopped| exit_code(&stopped.into());
        assert_eq!(code(lost.into()), 70);
        assert_eq!(code(EngineStopped::Stuck(Duration::from_secs(60))), 70);
        assert_eq!(code(EngineStopped::PanickedServing), 70);
        let missing = intentd_kernels::DeviceError::Unavailable("no driver".to_owned());
        assert_eq!(code(LoadError::from(missing).into()), 1);
        assert_eq!(exit_code(&ServerError::DrainTimeout(Duration::ZERO)), 1);
    }
}
