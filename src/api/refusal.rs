//! Refusals as HTTP answers: the status and `{"error", "error_type"}`, and their OpenAPI description.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::error::Refusal;

/// Why there is no answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer {
    /// What is wrong and what to do about it.
    error: String,
    /// A word for programs.
    #[schema(value_type = String, example = "Malformed")]
    error_type: &'static str,
}

/// What is refused, and why; the same for all requests for predictions.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "a description of what Refusal answers")]
pub(super) enum Refusals {
    /// The request cannot be read as what it claims to be, or holds no text.
    #[response(status = 400)]
    Malformed(ErrorAnswer),
    /// No valid key (--api-keys).
    #[response(status = 401)]
    Unauthorized(ErrorAnswer),
    /// The route exists, the method does not.
    #[response(status = 405)]
    Method(ErrorAnswer),
    /// The body did not arrive in time.
    #[response(status = 408)]
    BodyTimeout(ErrorAnswer),
    /// The body is larger than --max-body-bytes.
    #[response(status = 413)]
    TooLarge(ErrorAnswer),
    /// The body is of a type or in an encoding that is not read.
    #[response(status = 415)]
    MediaType(ErrorAnswer),
    /// The request can be read but makes no sense.
    #[response(status = 422)]
    Invalid(ErrorAnswer),
    /// More is asked than can be answered in time; Retry-After says when it makes sense to try again.
    #[response(status = 429)]
    Overloaded(ErrorAnswer),
    /// The engine failed.
    #[response(status = 500)]
    Engine(ErrorAnswer),
    /// The model is loading, or this replica is about to end.
    #[response(status = 503)]
    Unavailable(ErrorAnswer),
    /// The request's time was up.
    #[response(status = 504)]
    Deadline(ErrorAnswer),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorAnswer {
            error: self.to_string(),
            error_type: self.error_type(),
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(wait) = self.retry_after() {
            // Whole seconds, rounded up (RFC 9110, section 10.2.3).
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        if self == Self::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Self::Method { allowed, .. } = self {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}
