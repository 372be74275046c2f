//! Errors that end the process, with their exit codes.

use crate::config::ConfigError;

/// Exit code for flags or input that make no sense: `EX_USAGE` of sysexits.h.
const EX_USAGE: u8 = 64;

/// An error that ends the process.
#[derive(Debug)]
pub(super) struct Failure {
    /// The message for standard error; empty when it has been printed.
    pub(super) message: String,
    /// The exit code; 0 when the process ends early but has not failed.
    pub(super) code: u8,
}

impl Failure {
    /// Flags or input make no sense.
    pub(super) fn usage(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: EX_USAGE,
        }
    }

    /// Something failed outside of this program or in a measurement.
    #[cfg(feature = "bench")]
    pub(super) fn other(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: 1,
        }
    }

    /// clap answered the command line itself. Prints its answer: an error, or the help that was asked for.
    pub(super) fn answered(error: &clap::Error) -> Self {
        // Help goes to standard output, which may have no reader.
        let _ = error.print();
        Self {
            message: String::new(),
            code: if error.use_stderr() { EX_USAGE } else { 0 },
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let io = (&error as &dyn std::error::Error).downcast_ref::<std::io::Error>();
        // A reader that closes our output early is not a failure (`intentd predict < texts | head`).
        let is_closed = io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe);
        Self {
            message: error.to_string(),
            code: u8::from(!is_closed),
        }
    }
}

/// The checked settings, if neither the check nor parsing (`mistakes`) found anything wrong.
pub(super) fn without_mistakes<T>(
    checked: Result<T, ConfigError>,
    mut mistakes: Vec<String>,
) -> Result<T, Failure> {
    match checked {
        Ok(settings) if mistakes.is_empty() => Ok(settings),
        checked => {
            mistakes.extend(checked.err().into_iter().flat_map(|ConfigError(more)| more));
            Err(Failure::usage(ConfigError(mistakes)))
        }
    }
}
