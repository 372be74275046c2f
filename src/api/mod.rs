//! The HTTP surfaces: decode a request, ask the [`Classifier`], encode the answer.
//!
//! One file a surface. Nothing here knows the engine; nothing below knows HTTP.

mod accept;
mod admin;
mod predict;
mod refusal;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, Method};
use axum::routing::get;

use crate::error::Refusal;
use crate::model::Text;
use crate::serving::{Classifier, Request};

/// What the routes share.
#[derive(Debug, Clone)]
struct Shared {
    classifier: Arc<Classifier>,
    body_bytes_max: usize,
}

/// The main port: predictions and health.
pub fn main_routes(classifier: Arc<Classifier>, body_bytes_max: usize) -> Router {
    let shared = Shared {
        classifier,
        body_bytes_max,
    };
    Router::new()
        .route(
            "/predict",
            get(predict::get)
                .post(predict::post)
                .fallback(predict_method),
        )
        .merge(health_routes())
        .fallback(not_found)
        // The limit is our own, so that its refusal speaks like every other.
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

/// The operators' port: metrics and health.
pub fn admin_routes(classifier: Arc<Classifier>) -> Router {
    let shared = Shared {
        classifier,
        body_bytes_max: 0,
    };
    Router::new()
        .route("/metrics", get(admin::metrics).fallback(read_method))
        .merge(health_routes())
        .fallback(not_found)
        .with_state(shared)
}

/// What a `POST /predict` with these headers and this body asks for.
///
/// # Errors
/// A body that is encoded, of a type that is not read, or not what its type says; a [`Refusal`]
/// that never repeats the text.
pub fn decode_body(headers: &HeaderMap, body: &[u8]) -> Result<Request, Refusal> {
    request::decode(headers, body).map(|decoded| decoded.request)
}

/// What a `GET /predict` with this query string asks for.
///
/// # Errors
/// [`Refusal::Malformed`] where `query` is missing or stands there twice, `truncate` is neither
/// true nor false, or the text is not UTF-8.
pub fn decode_query(query: &str) -> Result<Request, Refusal> {
    let (text, too_long) =
        request::parameters_of(query.as_bytes(), "the query string", "/predict?query=music")?;
    Ok(Request {
        texts: vec![Text::Single(text)],
        too_long,
    })
}

fn health_routes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(admin::healthz).fallback(read_method))
        .route("/readyz", get(admin::readyz).fallback(read_method))
}

async fn not_found() -> Refusal {
    Refusal::NotFound
}

async fn predict_method(method: Method) -> Refusal {
    Refusal::Method {
        method: method.to_string(),
        allowed: "GET, HEAD, POST",
    }
}

async fn read_method(method: Method) -> Refusal {
    Refusal::Method {
        method: method.to_string(),
        allowed: "GET, HEAD",
    }
}
