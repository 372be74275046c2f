//! Refusals as HTTP answers: the status and `{"error", "error_type"}`, and their OpenAPI description.
//!
//! The values of `error_type` are those of Hugging Face's text-embeddings-inference where it has one, so that its
//! clients need no change.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::error::Refusal;
use crate::model::EncodeError;

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

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.code().0.as_u16()
    }

    /// The `error_type` of the JSON answer.
    pub fn error_type(&self) -> &'static str {
        self.code().1
    }

    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Empty | Self::NoData => (StatusCode::BAD_REQUEST, "Empty"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "Malformed"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::NotFound | Self::UnknownModel { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "Timeout"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "Conflict"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge"),
            Self::MediaType { .. }
            | Self::EventFormat { .. }
            | Self::EventData { .. }
            | Self::ContentEncoding { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType")
            }
            Self::Encode(EncodeError::Refused(_)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "Tokenizer")
            }
            Self::TooManyTexts { .. }
            | Self::TooMuchText { .. }
            | Self::Invalid(_)
            | Self::Encode(_)
            | Self::Reload(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Validation"),
            Self::Concurrency { .. }
            | Self::QueueFull { .. }
            | Self::ListsFull { .. }
            | Self::Overloaded { .. }
            | Self::BodyMemory { .. } => (StatusCode::TOO_MANY_REQUESTS, "Overloaded"),
            Self::Engine(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Backend"),
            Self::Loading | Self::Unhealthy => (StatusCode::SERVICE_UNAVAILABLE, "Unhealthy"),
            Self::OutOfMemory => (StatusCode::SERVICE_UNAVAILABLE, "Backend"),
            Self::Deadline | Self::DeadlineUnreachable { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "Timeout")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error_type) = self.code();
        let body = ErrorAnswer {
            error: self.to_string(),
            error_type,
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
