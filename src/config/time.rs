//! Times as flags give them: a duration, or "off" where a limit may be left out.

use std::str::FromStr;
use std::time::Duration;

/// The longest time that a flag may give.
const SECONDS_MAX: f64 = 1e8;

/// A time limit that may be off.
///
/// Users write `off` or `0` for no limit. In the program, no limit is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit(Option<Duration>);

impl TimeLimit {
    /// The limit, if there is one.
    pub fn get(self) -> Option<Duration> {
        self.0
    }
}

impl FromStr for TimeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = parse_or_off(text)?;
        Ok(Self((!time.is_zero()).then_some(time)))
    }
}

/// Parses `30` or `0.5` (seconds), `500ms` or `2m`; `off` is zero.
///
/// # Errors
/// What was expected.
pub(super) fn parse_or_off(text: &str) -> Result<Duration, String> {
    let wrong = || "expected seconds, a time such as 500ms or 2m, or \"off\"".to_owned();
    if text == "off" {
        return Ok(Duration::ZERO);
    }
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => humantime::parse_duration(text).map_err(|_| wrong())?,
    };
    if time.as_secs_f64() > SECONDS_MAX {
        return Err("expected at most three years".to_owned());
    }
    Ok(time)
}

/// Parses as [`parse_or_off`] does, for a time that cannot be off.
///
/// # Errors
/// What was expected.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Err("expected seconds, or a time such as 500ms or 2m".to_owned()),
        text => parse_or_off(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_or_has_a_unit() {
        let ms = Duration::from_millis;
        for (text, time) in [
            ("30", ms(30_000)),
            ("0.25", ms(250)),
            ("500ms", ms(500)),
            ("2m", ms(120_000)),
            ("0", ms(0)),
            ("off", ms(0)),
        ] {
            assert_eq!(parse_or_off(text), Ok(time), "{text}");
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
            assert!(parse_or_off(wrong).is_err(), "{wrong}");
        }
        assert!(parse("off").is_err());
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let limit = |text: &str| text.parse::<TimeLimit>().unwrap().get();
        assert_eq!(limit("off"), None);
        assert_eq!(limit("0"), None);
        assert_eq!(limit("2m"), Some(Duration::from_secs(120)));
    }
}
