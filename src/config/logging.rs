//! The flags of the log, and the check of `--log`.

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text for each message.
    Text,
    /// One JSON object for each message.
    Json,
}

/// Mistakes in `--log`.
pub(super) fn filter_mistakes(filter: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    if let Some(word) = filter.split(',').find(|word| is_misspelt_level(word)) {
        mistakes.push(format!(
            "--log: expected error, warn, info, debug, trace, off, or target=level, found {word:?}"
        ));
    }
    if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
        mistakes.push(format!(
            "--log: expected a tracing filter, found {filter:?}: {error}"
        ));
    }
    mistakes
}

/// Whether a word without a level is neither a level nor a number.
///
/// A filter would take it for a target, log every message of that target, and nothing else.
fn is_misspelt_level(word: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let word = word.trim();
    let is_level = levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_plain = word.chars().all(char::is_alphanumeric);
    is_plain && !is_level && word.parse::<u8>().is_err()
}
