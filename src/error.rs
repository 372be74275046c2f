//! Why a request got no prediction, and what each surface says about it.
//!
//! One table: every [`Refusal`] has one HTTP status, one `error_type` and one metric label.
//! The `error_type` words are those of Hugging Face's text-embeddings-inference where it has
//! one, so that its clients need no change.

use std::time::Duration;

use crate::model::EncodeError;

/// A request that was not answered with a prediction. Never holds the request's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The model is not loaded yet.
    #[error("the model is still loading; wait until /readyz answers 200")]
    Loading,
    /// The engine is lost and the process must be restarted.
    #[error("the engine has failed and this replica must be restarted; ask another one")]
    Unhealthy,
    /// As many requests are in flight as may be.
    #[error("{max} requests are in flight already (--max-concurrency); try again later")]
    Concurrency {
        /// The limit.
        max: usize,
    },
    /// The texts do not fit behind those that wait.
    #[error("the queue has no room for {count} more (--max-queue {max}); try again later")]
    QueueFull {
        /// Texts of the request.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The request holds no text at all.
    #[error("the list of texts is empty; send at least one")]
    Empty,
    /// The request holds more texts than one request may.
    #[error("{found} texts in one request, at most {max} are taken (--max-texts); split the list")]
    TooManyTexts {
        /// Texts in the request.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The body or the query string cannot be read as what it claims to be.
    #[error("{0}")]
    Malformed(String),
    /// The request can be read but does not make sense.
    #[error("{0}")]
    Invalid(String),
    /// A text that cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The body is larger than `--max-body-bytes`.
    #[error("the body is larger than {max} bytes (--max-body-bytes); send less at once")]
    BodyTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The body is of a type that this route does not read.
    #[error(
        "{found:?} is not read here; send application/json or application/x-www-form-urlencoded"
    )]
    MediaType {
        /// The request's Content-Type.
        found: String,
    },
    /// The route exists, the method does not.
    #[error("{method} is not answered here; use {allowed}")]
    Method {
        /// The request's method.
        method: String,
        /// Methods that are.
        allowed: &'static str,
    },
    /// No such route.
    #[error("nothing is served here; predictions are at /predict")]
    NotFound,
    /// The engine failed on this request's batch.
    #[error("the engine failed on this request: {0}")]
    Engine(String),
    /// The device has no memory left, not even for this request's text alone.
    #[error("the device has no memory for this text; try again later or ask another replica")]
    OutOfMemory,
    /// The body is encoded in a way that is not read.
    #[error("Content-Encoding {found:?} is not read here; send the body as it is")]
    ContentEncoding {
        /// The request's Content-Encoding.
        found: String,
    },
}

impl Refusal {
    /// The HTTP status code.
    pub fn status(&self) -> u16 {
        match self {
            Self::Loading | Self::Unhealthy | Self::OutOfMemory => 503,
            Self::Concurrency { .. } | Self::QueueFull { .. } => 429,
            Self::Empty | Self::Malformed(_) => 400,
            Self::TooManyTexts { .. } | Self::Invalid(_) | Self::Encode(_) => 422,
            Self::BodyTooLarge { .. } => 413,
            Self::MediaType { .. } | Self::ContentEncoding { .. } => 415,
            Self::Method { .. } => 405,
            Self::NotFound => 404,
            Self::Engine(_) => 500,
        }
    }

    /// The `error_type` of the JSON answer.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Loading | Self::Unhealthy => "Unhealthy",
            Self::Concurrency { .. } | Self::QueueFull { .. } => "Overloaded",
            Self::Empty => "Empty",
            Self::Malformed(_) => "Malformed",
            Self::TooManyTexts { .. } | Self::Invalid(_) => "Validation",
            Self::Encode(EncodeError::Refused(_)) => "Tokenizer",
            Self::Encode(_) => "Validation",
            Self::BodyTooLarge { .. } => "PayloadTooLarge",
            Self::MediaType { .. } | Self::ContentEncoding { .. } => "UnsupportedMediaType",
            Self::Method { .. } => "MethodNotAllowed",
            Self::NotFound => "NotFound",
            Self::Engine(_) | Self::OutOfMemory => "Backend",
        }
    }

    /// The `reason` label of `intentd_refused_total`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Unhealthy => "unhealthy",
            Self::Concurrency { .. } => "concurrency",
            Self::QueueFull { .. } => "queue",
            Self::Engine(_) => "engine",
            Self::OutOfMemory => "memory",
            _ => "client",
        }
    }

    /// When it makes sense to try again, for refusals that pass by themselves.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Loading
            | Self::Unhealthy
            | Self::Concurrency { .. }
            | Self::QueueFull { .. }
            | Self::OutOfMemory => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
