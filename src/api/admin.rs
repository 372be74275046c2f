//! Health, metrics and reload. Health and metrics wait neither for the engine nor for a lock that the
//! batcher holds.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Shared;
use super::refusal::ErrorAnswer;
use crate::error::Refusal;
use crate::serving::Phase;

/// The process lives: always 200.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "healthz",
    responses((status = 200, description = "Always", body = String, content_type = "text/plain"), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 when requests are answered, 503 while the model loads, while the process drains, while the
/// engine fails and when it is lost. Never "busy": an overloaded replica must stay visible.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses(
        (status = 200, description = "Requests are answered", body = String, content_type = "text/plain"),
        (status = 405, description = "The route exists, the method does not", body = ErrorAnswer),
        (status = 503, description = "They are not; the body says why", body = String, content_type = "text/plain"),
    ))]
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    let (status, text) = match (shared.classifier.phase(), shared.classifier.is_unwell()) {
        (Phase::Ready, false) if !shared.classifier.is_fed() => {
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for Kafka\n")
        }
        (Phase::Ready, false) => (StatusCode::OK, "ready\n"),
        (Phase::Ready, true) => (StatusCode::SERVICE_UNAVAILABLE, "failing\n"),
        (Phase::Loading, _) => (StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
        (Phase::Draining, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        (Phase::Lost, _) => (StatusCode::SERVICE_UNAVAILABLE, "lost\n"),
    };
    (status, text).into_response()
}

/// What became of a reload.
#[derive(Debug, Serialize)]
struct Reloaded {
    status: &'static str,
    took_ms: u64,
}

/// Loads the model again and answers when it is in use: 409 when another reload is under way or the
/// server is not serving, 422 when the model cannot be used; the one before then goes on.
pub(super) async fn reload(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // A page that somebody inside the cluster looks at is not an operator.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::Forbidden);
    }
    shared.authorize(&headers)?;
    let Some(reload) = &shared.reload else {
        return Err(Refusal::NotFound);
    };
    let start = Instant::now();
    reload().await?;
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = "reloaded";
    Ok(Json(Reloaded { status, took_ms }).into_response())
}

/// Prometheus text exposition.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let metrics = shared.classifier.metrics();
    let is_ready = shared.classifier.is_ready();
    // Set here and not where the phase changes: two changes at once could leave the older value.
    metrics.ready.set(i64::from(is_ready));
    let (content_type, mut text) = metrics.render();
    if let Some(triton) = &shared.triton {
        triton.append(metrics, &mut text);
    }
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
