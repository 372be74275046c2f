//! `/autoscaling`: the hints, as JSON for scalers and as settings for people to paste.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::fallback::only_get;
use super::state::ApiState;
use crate::autoscale::manifest;

/// The routes of the hints.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/autoscaling", get(hints).fallback(only_get))
        .route(
            "/autoscaling/manifest",
            get(settings_manifest).fallback(only_get),
        )
}

/// `GET /autoscaling`: one flat object, so that the path to each number is its name.
async fn hints(State(state): State<ApiState>) -> Response {
    state.hints.read(|snapshot| Json(snapshot).into_response())
}

/// `GET /autoscaling/manifest`: the settings of Knative, KEDA and the HPA that follow from the hints, as YAML.
async fn settings_manifest(State(state): State<ApiState>) -> Response {
    let text = state
        .hints
        .read(|snapshot| manifest(snapshot, state.admin_port));
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}
