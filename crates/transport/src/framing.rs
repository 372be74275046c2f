//! Checks of a request's head that hyper leaves to us.
//!
//! hyper refuses most malformed heads itself. Its answer is a bare 400 for a head that it cannot parse, for two
//! different lengths, for a length that is no number or exceeds 64 bits, and for a transfer coding whose last is
//! not `chunked`. It is a bare 431 for a head that is too large, or a length of 2^64-2 or 2^64-1. These never
//! become a request, so we cannot add an explanation. This module checks what hyper accepts.

use axum::Json;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    /// The host is missing or ambiguous.
    #[error("{0}")]
    Host(&'static str),
    /// The body's Transfer-Encoding is not supported.
    #[error(
        "bodies are read in chunks or by their Content-Length; send no other Transfer-Encoding"
    )]
    TransferCoding,
}

impl IntoResponse for HeadError {
    /// In the form of every refusal: `{"error", "error_type"}`.
    fn into_response(self) -> Response {
        let (status, error_type) = match self {
            Self::Host(_) => (StatusCode::BAD_REQUEST, "Malformed"),
            Self::TransferCoding => (StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        };
        let body = json!({"error": self.to_string(), "error_type": error_type});
        (status, Json(body)).into_response()
    }
}

/// Refuses a head with an ambiguous host, or with a body that cannot be decoded.
///
/// HTTP/2 has `:authority` and its own frames; h2 checks those.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), HeadError> {
    let headers = request.headers();
    match request.version() {
        Version::HTTP_2 => return Ok(()),
        version => check_host(headers, version)?,
    }
    check_coding(headers)
}

/// At most one Host, and exactly one on HTTP/1.1 (RFC 9112, section 3.2). A proxy that reads the other of two
/// would have checked a different request.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let what = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => return Ok(()),
        (None, _) if version < Version::HTTP_11 => return Ok(()),
        (None, _) => "the request has no Host header; send one",
        (Some(_), None) => "the Host header names no host; send the one that is asked",
        (Some(_), Some(_)) => "the request has two Host headers; send one",
    };
    Err(HeadError::Host(what))
}

/// Whether the value is a name with an optional port, or empty, as for an address without a name.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

/// `chunked` is the only transfer coding accepted (RFC 9112, section 6.1). A body with another coding would be
/// read as if it were not encoded.
fn check_coding(headers: &HeaderMap) -> Result<(), HeadError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(HeadError::TransferCoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let checked = check(&request.body(()).unwrap());
        checked.map_or_else(|error| error.into_response().status().as_u16(), |()| 200)
    }

    #[test]
    fn a_request_has_one_host() {
        let one = |version, host| checked(version, &[("host", host)]);
        for host in ["a", "a:80", "127.0.0.1:8080", "[::1]:80", "a_b.svc", ""] {
            assert_eq!(one(Version::HTTP_11, host), 200, "{host:?}");
        }
        for host in ["a b", "a, a", "a/b", "user@a", "http://a"] {
            assert_eq!(one(Version::HTTP_11, host), 400, "{host:?}");
        }
        let two = [("host", "a"), ("host", "a")];
        assert_eq!(checked(Version::HTTP_11, &two), 400);
        assert_eq!(checked(Version::HTTP_10, &two), 400);
        assert_eq!(checked(Version::HTTP_11, &[]), 400);
        assert_eq!(checked(Version::HTTP_10, &[]), 200);
        assert_eq!(checked(Version::HTTP_2, &[]), 200);
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        let coded = |codings: &[&'static str]| {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            let headers: Vec<_> = [("host", "a")].into_iter().chain(codings).collect();
            checked(Version::HTTP_11, &headers)
        };
        assert_eq!(coded(&["chunked"]), 200);
        assert_eq!(coded(&["Chunked"]), 200);
        for others in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked, chunked"],
            &["identity, chunked"],
            &["gzip"],
        ] {
            assert_eq!(coded(others), 501, "{others:?}");
        }
    }
}
