//! Requests of `/predict`.

use axum::http::{HeaderMap, HeaderValue, header};
use intentd::api;
use intentd::serving::Request;

use super::{check_bytes, check_refusal};

/// A request: the first line is the content type, `?` for a query string or `-` for no content type; the rest
/// is the body.
pub fn request_body(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (kind, body) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let decoded = if kind == b"?" {
        // The HTTP library accepts nothing else.
        let Ok(query) = std::str::from_utf8(body) else {
            return;
        };
        api::decode_query(query)
    } else {
        let mut headers = HeaderMap::new();
        if kind != b"-" {
            let Ok(value) = HeaderValue::from_bytes(kind) else {
                return;
            };
            headers.insert(header::CONTENT_TYPE, value);
        }
        api::decode_body(&headers, body)
    };
    match decoded {
        Ok(Request { texts, .. }) => {
            // JSON escapes, `+` and percent-encoding only make a text shorter.
            check_bytes(&texts, body.len());
        }
        Err(refusal) => check_refusal(&refusal),
    }
}
