//! The time that a client gives its request.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use crate::error::Refusal;

/// The time that a client waits for its answer, in milliseconds.
const HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// The same for gRPC (gRPC over HTTP/2, "Requests").
const GRPC: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time that a request has: what its client asks for, but at most `server`.
pub(super) fn timeout_of(
    headers: &HeaderMap,
    server: Option<Duration>,
) -> Result<Option<Duration>, Refusal> {
    let within = |asked: Duration| Some(server.map_or(asked, |server| asked.min(server)));
    if let Some(value) = headers.get(GRPC) {
        let asked = value.to_str().ok().and_then(grpc);
        let wrong = || {
            Refusal::Malformed(format!(
                "the header {GRPC} is not a valid duration; send one such as 250m"
            ))
        };
        return Ok(within(asked.ok_or_else(wrong)?));
    }
    let Some(value) = headers.get(HEADER) else {
        return Ok(server);
    };
    let wrong = || {
        let what = format!("the header {HEADER} is not a whole number of milliseconds, like 250");
        Refusal::Malformed(what)
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(wrong());
    }
    // A number that does not fit is as good as no limit.
    let asked = text.parse().map_or(Duration::MAX, Duration::from_millis);
    Ok(within(asked))
}

/// Parses at most eight digits and a unit.
fn grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits
        .parse()
        .ok()
        .filter(|_| is_number && digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_has_a_unit() {
        assert_eq!(grpc("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            grpc("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(grpc("1n"), Some(Duration::from_nanos(1)));
        for wrong in ["", "m", "1", "1x", "-1m", "+1m", "123456789m", "1é"] {
            assert_eq!(grpc(wrong), None, "{wrong:?}");
        }
        let headers = HeaderMap::from_iter([(GRPC, "2S".parse().unwrap())]);
        let second = Duration::from_secs(1);
        assert_eq!(timeout_of(&headers, Some(second)), Ok(Some(second)));
        assert_eq!(timeout_of(&headers, None), Ok(Some(2 * second)));
    }

    #[test]
    fn a_client_can_only_shorten_the_time() {
        let ms = Duration::from_millis;
        let timeout = |text: Option<&str>, server| {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(HEADER, text.parse().unwrap());
            }
            timeout_of(&headers, server).ok()
        };
        assert_eq!(timeout(None, Some(ms(100))), Some(Some(ms(100))));
        assert_eq!(timeout(None, None), Some(None));
        assert_eq!(timeout(Some("50"), Some(ms(100))), Some(Some(ms(50))));
        assert_eq!(timeout(Some("500"), Some(ms(100))), Some(Some(ms(100))));
        assert_eq!(timeout(Some("0"), None), Some(Some(ms(0))));
        let endless = "99999999999999999999999";
        assert_eq!(timeout(Some(endless), Some(ms(9))), Some(Some(ms(9))));
        for wrong in ["", "1s", "-1", "+1", "1.5", "1 2"] {
            assert_eq!(timeout(Some(wrong), None), None, "{wrong:?}");
        }
    }
}
