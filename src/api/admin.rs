//! Health and metrics. Neither waits for the engine nor for a lock that the batcher holds.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::serving::Phase;

/// The process lives: always 200.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 when requests are answered, 503 while the model loads, while the process drains and when
/// the engine is lost. Never "busy": an overloaded replica must stay visible.
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    let phase = shared.classifier.phase();
    let status = match phase {
        Phase::Ready => StatusCode::OK,
        Phase::Loading | Phase::Draining | Phase::Lost => StatusCode::SERVICE_UNAVAILABLE,
    };
    let text = match phase {
        Phase::Loading => "loading\n",
        Phase::Ready => "ready\n",
        Phase::Draining => "draining\n",
        Phase::Lost => "lost\n",
    };
    (status, text).into_response()
}

/// Prometheus text exposition.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let (content_type, text) = shared.classifier.metrics().render();
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
