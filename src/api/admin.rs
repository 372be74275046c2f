//! Routes of operators: health, metrics and reload. Health and metrics wait neither for the engine nor for a lock that
//! the batcher holds.

use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use utoipa::OpenApi;

use super::fallback::{only_get, only_post};
use super::refusal::ErrorAnswer;
use super::state::ApiState;
use crate::error::Refusal;
use crate::serving::Phase;

/// The routes of probes.
pub(super) fn health_routes() -> Router<ApiState> {
    Router::new()
        .route("/healthz", get(healthz).fallback(only_get))
        .route("/readyz", get(readyz).fallback(only_get))
}

/// The route of metrics.
pub(super) fn metrics_routes() -> Router<ApiState> {
    Router::new().route("/metrics", get(metrics).fallback(only_get))
}

/// The route that loads the model again.
pub(super) fn reload_routes() -> Router<ApiState> {
    Router::new().route("/reload", post(reload).fallback(only_post))
}

/// The part of the OpenAPI document for probes.
#[derive(OpenApi)]
#[openapi(paths(healthz, readyz), tags((name = "health", description = "For probes")))]
pub(super) struct HealthDocument;

/// The process lives: always 200.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "healthz",
    responses((status = 200, description = "Always", body = String, content_type = "text/plain"), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
async fn healthz() -> &'static str {
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
async fn readyz(State(state): State<ApiState>) -> Response {
    let (status, text) = match (state.classifier.phase(), state.classifier.is_unwell()) {
        (Phase::Ready, false) if !state.classifier.is_fed() => {
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

/// The answer to a reload that succeeded.
#[derive(Debug, Serialize)]
struct Reloaded {
    status: &'static str,
    took_ms: u64,
}

/// Loads the model again and answers once it is in use. 409 if another reload is in progress or the server is not
/// serving; 422 if the model cannot be used. After an error the current model stays in use.
async fn reload(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, Refusal> {
    // A browser inside the cluster, showing any page, is not an operator.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::Forbidden);
    }
    state.authorize(&headers)?;
    let Some(reload) = &state.reload else {
        return Err(Refusal::NotFound);
    };
    let start = Instant::now();
    reload().await?;
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = "reloaded";
    Ok(Json(Reloaded { status, took_ms }).into_response())
}

/// `GET /metrics`: the Prometheus text exposition.
async fn metrics(State(state): State<ApiState>) -> Response {
    let metrics = state.classifier.metrics();
    let is_ready = state.classifier.is_ready();
    // Set here rather than where the phase changes: two concurrent changes could leave the older value.
    metrics.ready.set(i64::from(is_ready));
    let (content_type, mut text) = metrics.render();
    if let Some(triton) = &state.triton {
        triton.append(metrics, &mut text);
    }
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
