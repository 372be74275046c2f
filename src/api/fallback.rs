//! Refusals of requests that no handler takes: unknown paths, and methods that a path does not have.

use axum::http::Method;

use crate::error::Refusal;

/// Refuses an unknown path.
pub(super) async fn not_found() -> Refusal {
    Refusal::NotFound
}

/// Refuses every method but those of a path that is read.
pub(super) async fn only_get(method: Method) -> Refusal {
    refuse(&method, "GET, HEAD")
}

/// Refuses every method but that of a path that takes a body.
pub(super) async fn only_post(method: Method) -> Refusal {
    refuse(&method, "POST")
}

/// Refuses every method but those of a path that is read and takes a body.
pub(super) async fn only_get_and_post(method: Method) -> Refusal {
    refuse(&method, "GET, HEAD, POST")
}

fn refuse(method: &Method, allowed: &'static str) -> Refusal {
    Refusal::Method {
        method: method.to_string(),
        allowed,
    }
}
