//! Durations of measurements, as flags give them.

use std::time::Duration;

/// Parses a duration with its unit, such as `50ms`.
///
/// # Errors
/// What was expected.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a time with its unit, such as 50ms, 10s or 2m".to_owned())
}
