//! `intentd serve`: the life of the server process.

use std::io::Write as _;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::log;
use super::process::stop_signal;
use crate::config::{Config, ConfigError, Knative, Platform, ServeArgs, Settings};
use crate::server::{self, Reloader, ServerError};

/// Exit code of a server whose engine broke, or whose topic is lost to it, for which a restart helps: `EX_SOFTWARE` of sysexits.h.
const ENGINE_LOST: u8 = 70;

/// Time that a server whose engine broke has to end by itself.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT; SIGHUP loads model, certificates and keys again.
pub(super) fn run(
    args: ServeArgs,
    settings: Option<&Settings>,
    mut mistakes: Vec<String>,
) -> Result<(), Failure> {
    let (filter, format) = (args.log.clone(), args.log_format);
    let print = args.print_config;
    let platform = Platform::from_environment();
    let config = match (Config::new(args, &platform), mistakes.is_empty()) {
        (Ok(config), true) => config,
        (checked, _) => {
            mistakes.extend(checked.err().into_iter().flat_map(|ConfigError(more)| more));
            return Err(Failure::usage(ConfigError(mistakes)));
        }
    };
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
        // Listening for signals before anything else: one that comes early must not be lost.
        let stop = stop_signal()?;
        let reload = signal(SignalKind::hangup())?;
        let running = server::start(&config).map_err(starting)?;
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
        running.until(stop).await.map_err(failure)
    });
    // Tokenizations whose clients have left must not hold up the end.
    runtime.shutdown_background();
    result
}

/// A file that a flag names and that cannot be used is a wrong setting.
fn starting(error: ServerError) -> Failure {
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
