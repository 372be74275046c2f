//! The framing of a gRPC call with one message: five bytes before it, the status in trailers after it.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::{Code, Status};

use crate::error::Refusal;

/// The most bytes of a message other than a request for predictions. It holds only names of services and models.
pub(super) const MESSAGE_MAX: usize = 4 << 10;

/// Carries the load report in the trailers (gRPC proposal A51).
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Says when to try again (gRPC proposal A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A status as trailers.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A code, a text and a number are always valid.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// Takes the message out of a body.
///
/// # Errors
/// A compressed message, or a body that is not exactly one message.
pub(super) fn message(body: &Bytes) -> Result<Bytes, Refusal> {
    let malformed = || {
        let what = "the body is not one message behind its length";
        Refusal::Malformed(what.to_owned())
    };
    let (prefix, rest) = body.split_first_chunk::<PREFIX>().ok_or_else(malformed)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        let found = "a compressed message".to_owned();
        return Err(Refusal::ContentEncoding { found });
    }
    if u32::from_be_bytes(length) as usize != rest.len() {
        return Err(malformed());
    }
    Ok(body.slice(PREFIX..))
}

/// The answer to a call of one message, with `report` among the trailers.
pub(super) fn answer(message: &impl prost::Message, report: Option<HeaderValue>) -> Response {
    let length = message.encoded_len();
    let mut body = Vec::with_capacity(PREFIX + length);
    body.push(0);
    // gRPC has no messages beyond 4 GB; ours are a few times as long as the request.
    body.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // The buffer has room for all of it.
    let _ = message.encode(&mut body);
    let mut trailers = trailers(&Status::new(Code::Ok, ""));
    if let Some(report) = report {
        trailers.insert(REPORT, report);
    }
    let body = Full::new(Bytes::from(body)).with_trailers(async move { Some(Ok(trailers)) });
    let content_type = HeaderValue::from_static("application/grpc");
    ([(header::CONTENT_TYPE, content_type)], Body::new(body)).into_response()
}

/// The answer to a call that is refused, with `report` among its headers.
pub(super) fn refuse(refusal: Refusal, report: Option<HeaderValue>) -> Response {
    let mut response = Status::from(refusal).into_http();
    if let Some(report) = report {
        // An answer without a body has its trailers as headers.
        response.headers_mut().insert(REPORT, report);
    }
    response
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let code = match &refusal {
            Refusal::ContentEncoding { .. } => Code::Unimplemented,
            _ => match refusal.status() {
                401 => Code::Unauthenticated,
                403 => Code::PermissionDenied,
                404 => Code::NotFound,
                408 | 504 => Code::DeadlineExceeded,
                409 => Code::FailedPrecondition,
                413 => Code::OutOfRange,
                429 => Code::ResourceExhausted,
                500 => Code::Internal,
                503 => Code::Unavailable,
                _ => Code::InvalidArgument,
            },
        };
        let mut status = Self::new(code, message);
        if let Some(wait) = refusal.retry_after() {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(PUSHBACK, millis.into());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_message() {
        let body = |bytes: &'static [u8]| message(&Bytes::from_static(bytes));
        assert_eq!(&body(b"\0\0\0\0\x02ab").unwrap()[..], b"ab");
        assert_eq!(body(b"\0\0\0\0\0").unwrap().len(), 0);
        for wrong in [
            &b""[..],
            b"\0\0\0",
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\x01",
            b"\0\0\0\0\x01ab",
        ] {
            assert_eq!(body(wrong).unwrap_err().status(), 400);
        }
        let compressed = Status::from(body(b"\x01\0\0\0\x01a").unwrap_err());
        assert_eq!(compressed.code(), Code::Unimplemented);
    }
}
