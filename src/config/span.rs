//! Lengths of time as flags give them.

use std::time::Duration;

/// Longer than that is a mistake.
const SECONDS_MAX: f64 = 1e8;

/// `30` or `0.5` (seconds), `500ms`, `2m`; `0` or `off` for none, which is zero here.
///
/// # Errors
/// What was expected.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "expected seconds, a time such as 500ms or 2m, or \"off\"".to_owned();
    if text == "off" {
        return Ok(Duration::ZERO);
    }
    let span = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => humantime::parse_duration(text).map_err(|_| wrong())?,
    };
    if span.as_secs_f64() > SECONDS_MAX {
        return Err("expected at most three years".to_owned());
    }
    Ok(span)
}

/// As [`parse`], for a time that must end.
///
/// # Errors
/// What was expected.
pub(super) fn parse_limit(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Err("expected seconds, or a time such as 500ms or 2m".to_owned()),
        text => parse(text),
    }
}

/// The time that a flag gives, if it gives one.
pub(super) fn some(span: Duration) -> Option<Duration> {
    (!span.is_zero()).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_units_and_off() {
        let ms = Duration::from_millis;
        for (text, span) in [
            ("30", ms(30_000)),
            ("0.25", ms(250)),
            ("500ms", ms(500)),
            ("2m", ms(120_000)),
            ("0", ms(0)),
            ("off", ms(0)),
        ] {
            assert_eq!(parse(text), Ok(span), "{text}");
        }
        for wrong in [
            "",
            "-1",
            "nan",
            "inf",
            "1e30",
            "fast",
            "10 parsecs",
            "400years",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
