//! Swagger UI at `/docs/`, for people who read the OpenAPI document.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use super::fallback::only_get;
use super::state::ApiState;
use crate::error::Refusal;

/// The routes of the page.
pub(super) fn routes() -> Router<ApiState> {
    let to_page = get(async || Redirect::to("/docs/")).fallback(only_get);
    Router::new()
        .route("/docs", to_page)
        .route("/docs/", get(get_page).fallback(only_get))
        .route("/docs/{*file}", get(get_page_file).fallback(only_get))
}

/// `GET /docs/`: the page.
async fn get_page() -> Result<Response, Refusal> {
    page_file("index.html")
}

/// `GET /docs/…`: the files of the page.
async fn get_page_file(path: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let Path(path) = path.map_err(|_| Refusal::NotFound)?;
    page_file(&path)
}

fn page_file(path: &str) -> Result<Response, Refusal> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        // The page's validator would send this server's address to a third party.
        Arc::new(Config::from("/openapi.json").validator_url("none"))
    });
    match utoipa_swagger_ui::serve(path, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            let content_type = [(header::CONTENT_TYPE, file.content_type)];
            Ok((StatusCode::OK, content_type, file.bytes.into_owned()).into_response())
        }
        Ok(None) | Err(_) => Err(Refusal::NotFound),
    }
}
