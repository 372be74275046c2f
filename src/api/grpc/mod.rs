//! gRPC on the port of HTTP: predictions, health and reflection.
//!
//! Predictions are bounded like every other request ([`infer`]); everything else is small and is answered by tonic
//! within [`bounds`].

mod health;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post, post_service};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::{Body as _, Frame};
use tonic::{Code, Status};

use super::inference::grpc::{DESCRIPTORS, infer, service};
use super::{Shared, write_method};
use crate::error::Refusal;

/// Bytes of a message that is no request for predictions: names of services and models.
pub(super) const MESSAGE_MAX: usize = 4 << 10;

/// The load report in the trailers (gRPC proposal A51).
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// When to try again (gRPC proposal A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Routes of all services.
pub(super) fn routes(
    shared: &Shared,
    traced: impl Fn(&'static str, MethodRouter<Shared>) -> MethodRouter<Shared>,
) -> Router<Shared> {
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
    let infer = post(infer).fallback(write_method);
    let others = Router::new()
        .route(
            "/inference.GRPCInferenceService/{method}",
            post_service(service(shared)).fallback(write_method),
        )
        .merge(health::routes(shared))
        .merge(reflection())
        .layer(from_fn_with_state(shared.clone(), bounds));
    Router::new()
        .route(INFER, traced(INFER, infer))
        .merge(others)
        .layer(axum::middleware::from_fn(grpc_only))
}

/// What the services are, for clients that have no .proto file.
fn reflection() -> Router<Shared> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Router::new();
    // They are made by this build from files that a test asks for.
    if let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) {
        let v1 = post_service(v1.max_decoding_message_size(MESSAGE_MAX));
        let v1alpha = post_service(v1alpha.max_decoding_message_size(MESSAGE_MAX));
        routes = routes
            .route(
                "/grpc.reflection.v1.ServerReflection/{method}",
                v1.fallback(write_method),
            )
            .route(
                "/grpc.reflection.v1alpha.ServerReflection/{method}",
                v1alpha.fallback(write_method),
            );
    }
    routes
}

/// Refuses what is not gRPC (its protocol over HTTP/2, "Requests") before anybody reads it.
async fn grpc_only(request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc = matches!(
        content_type,
        b"application/grpc" | b"application/grpc+proto"
    );
    if is_grpc || request.method() != axum::http::Method::POST {
        return next.run(request).await;
    }
    StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response()
}

/// Answers within the time that a body has, and ends a stream when the ports close: a client may keep its
/// side of it open for ever.
async fn bounds(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let answered = async {
        let answer = next.run(request);
        match shared.body.timeout() {
            Some(timeout) => tokio::time::timeout(timeout, answer).await,
            None => Ok(answer.await),
        }
    };
    let response = tokio::select! {
        answered = answered => answered.unwrap_or_else(|_| {
            Status::deadline_exceeded("the message did not arrive in time").into_http()
        }),
        () = shared.clone().closing() => ending().into_http(),
    };
    if response.body().is_end_stream() {
        // Nothing but trailers, which has to stay so on the wire.
        return response;
    }
    response.map(|body| {
        let closing = Box::pin(shared.closing());
        let frames = stream::unfold(Some((BodyStream::new(body), closing)), async |open| {
            let (mut frames, mut closing) = open?;
            tokio::select! {
                // What there is to say is said before the end.
                biased;
                frame = frames.next() => Some((frame?, Some((frames, closing)))),
                () = &mut closing => Some((Ok(Frame::trailers(trailers(&ending()))), None)),
            }
        });
        Body::new(StreamBody::new(frames))
    })
}

fn ending() -> Status {
    Status::unavailable("this replica is about to end; ask another one")
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A code, a text and a number can always be written.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// The message in a body of one, as it came.
///
/// # Errors
/// A body that is compressed, or is not one message.
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
    // A message beyond 4 GB would not be one of gRPC's; ours are a few times the request.
    body.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // There is room for all of it.
    let _ = message.encode(&mut body);
    let mut trailers = trailers(&Status::new(Code::Ok, ""));
    if let Some(report) = report {
        trailers.insert(REPORT, report);
    }
    let body = Full::new(Bytes::from(body)).with_trailers(async move { Some(Ok(trailers)) });
    let content_type = HeaderValue::from_static("application/grpc");
    ([(header::CONTENT_TYPE, content_type)], Body::new(body)).into_response()
}

/// A refusal as the answer to a call.
pub(super) fn refuse(refusal: Refusal, report: Option<HeaderValue>) -> Response {
    let mut response = Status::from(refusal).into_http();
    if let Some(report) = report {
        // Nothing but trailers, which are then the headers.
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
