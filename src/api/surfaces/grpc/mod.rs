//! gRPC on the port of HTTP: predictions, health and reflection.
//!
//! Predictions are bounded and admitted as on every other surface ([`inference::infer`]). All other messages are small,
//! and tonic answers them within [`bounds`].

mod framing;
mod health;
mod inference;
mod reflection;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post, post_service};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as _, Frame};
use tonic::Status;

use self::framing::trailers;
pub use self::inference::{decode_inference_message, proto};
use crate::api::fallback::only_post;
use crate::api::state::ApiState;
use crate::api::surface::{Route, Surface};

/// The surface.
pub(super) static SURFACE: Surface = Surface {
    label: inference::LABEL,
    title: "Open Inference Protocol (gRPC)",
    routes: &[
        Route::new("/inference.GRPCInferenceService/ModelInfer", |_| {
            post(inference::infer).fallback(only_post)
        })
        .traced(),
        Route::new("/inference.GRPCInferenceService/{method}", |state| {
            let service = post_service(inference::service(state)).fallback(only_post);
            bounded(state, service)
        }),
        Route::new("/grpc.health.v1.Health/{method}", |state| {
            let service = post_service(health::service(state)).fallback(only_post);
            bounded(state, service)
        }),
        Route::new("/grpc.reflection.v1.ServerReflection/{method}", |state| {
            bounded(state, reflection::v1())
        }),
        Route::new(
            "/grpc.reflection.v1alpha.ServerReflection/{method}",
            |state| bounded(state, reflection::v1alpha()),
        ),
    ],
    guard: Some(|router: Router<ApiState>| router.layer(from_fn(grpc_only))),
    openapi: None,
    fuzz_targets: &["inference_grpc"],
};

fn bounded(state: &ApiState, methods: MethodRouter<ApiState>) -> MethodRouter<ApiState> {
    methods.layer(from_fn_with_state(state.clone(), bounds))
}

/// Refuses requests that are not gRPC ("gRPC over HTTP/2", Requests) before anything reads them.
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

/// Refuses a message that does not arrive within the time of a body, and ends streams when the ports close: a client
/// may keep its side of a stream open for ever.
async fn bounds(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let answered = async {
        let answer = next.run(request);
        match state.bodies.timeout() {
            Some(timeout) => tokio::time::timeout(timeout, answer).await,
            None => Ok(answer.await),
        }
    };
    let response = tokio::select! {
        answered = answered => answered.unwrap_or_else(|_| {
            Status::deadline_exceeded("the message did not arrive in time").into_http()
        }),
        () = state.clone().closing() => ending().into_http(),
    };
    if response.body().is_end_stream() {
        // It has only trailers, and has to stay so on the wire.
        return response;
    }
    response.map(|body| {
        let closing = Box::pin(state.closing());
        let frames = stream::unfold(Some((BodyStream::new(body), closing)), async |open| {
            let (mut frames, mut closing) = open?;
            tokio::select! {
                // Frames that are ready are sent before the end.
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
