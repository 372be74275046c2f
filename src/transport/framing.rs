//! What a head has to say before anybody reads it as a request.
//!
//! Most of this is hyper's: a head that it cannot read, two lengths that differ, a length that is no
//! number or does not fit into 64 bits, and a transfer coding whose last is not `chunked` get its bare
//! 400, and a head that is too large, or a length of 2^64-2 or 2^64-1, its bare 431. No request comes of
//! those, so nothing of ours could say more. Here is what it lets through.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request, Version, header};

use crate::error::Refusal;

/// Refuses a head whose request could be meant for somebody else, or whose body cannot be read.
///
/// HTTP/2 has `:authority` and frames of its own, and h2 checks them.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    match request.version() {
        Version::HTTP_2 => return Ok(()),
        version => check_host(headers, version)?,
    }
    check_coding(headers)
}

/// One Host, and where HTTP/1.1 is spoken not less (RFC 9112, section 3.2): a proxy that looks at another
/// of two would have let something else through.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let what = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => return Ok(()),
        (None, _) if version < Version::HTTP_11 => return Ok(()),
        (None, _) => "the request has no Host header; send one",
        (Some(_), None) => "the Host header names no host; send the one that is asked",
        (Some(_), Some(_)) => "the request has two Host headers; send one",
    };
    Err(Refusal::Malformed(what.to_owned()))
}

/// Whether it is a name and perhaps a port, or nothing, as where the address has no name.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

/// The body comes in chunks and in nothing else (RFC 9112, section 6.1): what is packed otherwise would be
/// read as if it were the body.
fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::TransferCoding),
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
        checked.map_or_else(|refusal| refusal.status(), |()| 200)
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
    fn a_body_comes_in_chunks_alone() {
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
