//! `/autoscaling`: the hints as JSON for scalers, and as settings to paste for people.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::autoscale::manifest;

/// `GET /autoscaling`: one flat object; numbers under single names, so that a path to each is its name.
pub(super) async fn get(State(shared): State<Shared>) -> Response {
    shared.hints.read(|snapshot| Json(snapshot).into_response())
}

/// `GET /autoscaling/manifest`: settings of Knative, KEDA and the HPA that follow, as YAML.
pub(super) async fn get_manifest(State(shared): State<Shared>) -> Response {
    let text = shared
        .hints
        .read(|snapshot| manifest(snapshot, shared.admin_port));
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}
