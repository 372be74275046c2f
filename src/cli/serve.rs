//! `intentd serve`: the process of the server.

use std::io::Write as _;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{Failure, without_mistakes};
use super::log;
use super::shutdown::stop_signal;
use crate::config::{Config, EffectiveSettings, Knative, Platform, ServeArgs};
use crate::server::{self, Reloader, ServerError};

/// Exit code after the loss of the engine or of the Kafka topic, where a restart helps: `EX_SOFTWARE` of
/// sysexits.h.
const ENGINE_LOST: u8 = 70;

/// Time for a clean exit after the loss of the engine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT; SIGHUP reloads model, certificates and keys.
pub(super) fn run(
    args: ServeArgs,
    settings: Option<&EffectiveSettings>,
    mistakes: Vec<String>,
) -> Result<(), Failure> {
    let (filter, format) = (args.log.clone(), args.log_format);
    let print = args.print_config;
    let platform = Platform::from_environment();
    let config = without_mistakes(Config::new(args, &platform), mistakes)?;
    if let (true, Some(settings)) = (print, settings) {
        return Ok(std::io::stdout().write_all(settings.to_toml().as_bytes())?);
    }
    log::start(&filter, format);
    if let Some(Knative {
        service,
        configuration,
        revision,
    }) = &platform.knative
    {
        tracing::info!(service, configuration, revision, "running under Knative");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // First of all, so that an early signal is not lost.
        let stop = stop_signal()?;
        let reload = signal(SignalKind::hangup())?;
        let running = server::start(&config).map_err(startup_failure)?;
        if let Some(address) = running.address {
            tracing::info!(%address, "serving predictions");
        }
        if let Some(path) = &config.unix_socket {
            tracing::info!(path = %path.display(), "serving predictions");
        }
        if let Some(address) = running.admin_address {
            tracing::info!(%address, "serving metrics and health");
        }
        tokio::spawn(reload_on(reload, running.reloader.clone()));
        running.until(stop).await.map_err(run_failure)
    });
    // Tokenization for clients that have left must not delay the exit.
    runtime.shutdown_background();
    result
}

/// The failure of a server that cannot start. A file that cannot be used is a mistake in the flag that names it.
fn startup_failure(error: ServerError) -> Failure {
    match error {
        ServerError::Tls(_) | ServerError::Keys(_) => Failure::usage(error),
        #[cfg(feature = "kafka")]
        ServerError::Kafka(_) => Failure::usage(error),
        error => error.into(),
    }
}

async fn reload_on(mut signal: Signal, reloader: Reloader) {
    while signal.recv().await.is_some() {
        tracing::info!("reloading (SIGHUP)");
        if reloader.reload().await.is_ok() {
            tracing::info!("reloaded");
        }
    }
}

fn run_failure(error: ServerError) -> Failure {
    let code = exit_code(&error);
    if code == ENGINE_LOST {
        std::thread::spawn(|| {
            std::thread::sleep(EXIT_TIMEOUT);
            // At exit, the driver may wait for a device that hangs.
            std::process::abort();
        });
    }
    Failure {
        code,
        ..Failure::from(error)
    }
}

fn exit_code(error: &ServerError) -> u8 {
    if error.is_engine_lost() || matches!(error, ServerError::Unreadable(_)) {
        ENGINE_LOST
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineError, LoadError};
    use crate::serving::EngineStopped;

    #[test]
    fn a_lost_engine_has_its_own_exit_code() {
        let lost = EngineError::Lost("an illegal address".to_owned());
        let code = |stopped: EngineStopped| exit_code(&stopped.into());
        assert_eq!(code(lost.into()), 70);
        assert_eq!(code(EngineStopped::Stuck(Duration::from_secs(60))), 70);
        assert_eq!(code(EngineStopped::PanickedServing), 70);
        let missing = crate::engine::DeviceError::Unavailable("no driver".to_owned());
        assert_eq!(code(LoadError::from(missing).into()), 1);
        assert_eq!(exit_code(&ServerError::DrainTimeout(Duration::ZERO)), 1);
    }
}
