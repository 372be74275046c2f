//! How long a client waits for its answer.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use crate::error::Refusal;

/// Milliseconds after which nobody wants the answer any more.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// The time that a request has: what its client says, at most `server`.
pub(super) fn timeout_of(
    headers: &HeaderMap,
    server: Option<Duration>,
) -> Result<Option<Duration>, Refusal> {
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
    // What has more digits than fit is as good as no limit.
    let asked = text.parse().map_or(Duration::MAX, Duration::from_millis);
    Ok(Some(server.map_or(asked, |server| asked.min(server))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_may_have_less_time_than_the_server_gives() {
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
