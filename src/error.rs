//! Refusals: why a request got no prediction, and how it counts. Surfaces decide how they report it
//! (`src/api/refusal.rs`).

use std::time::Duration;

use intentd_base::shown;

use crate::model::EncodeError;

/// The longest `Retry-After`: the load cannot be predicted further ahead.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Who is to blame for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The load: the server cannot do more now, but another replica could.
    Load,
    /// The server: another replica would not help.
    Server,
    /// The client's request.
    Client,
}

/// The reason why a request was not answered with a prediction. Never holds the request's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The model is not loaded yet.
    #[error("the model is still loading; wait until /readyz answers 200")]
    Loading,
    /// The engine is lost and the process must be restarted.
    #[error("the engine has failed and this replica must be restarted; ask another one")]
    Unhealthy,
    /// Too many requests are in flight.
    #[error("{max} requests are in flight already (--max-concurrency); try again later")]
    Concurrency {
        /// The limit.
        max: usize,
        /// Time until what waits now is done.
        retry_after: Duration,
    },
    /// The queue has too few free slots.
    #[error("the queue has no room for {count} more (--max-queue {max}); try again later")]
    QueueFull {
        /// Texts of the request.
        count: usize,
        /// The limit.
        max: usize,
        /// Time until what waits now is done.
        retry_after: Duration,
    },
    /// The queue has too few free slots for lists.
    #[error(
        "the queue has no room for a list of {count} beside the other lists ({max} texts, \
         --max-list-share); try again later or send smaller lists"
    )]
    ListsFull {
        /// Texts of the request.
        count: usize,
        /// The limit for texts of lists.
        max: usize,
        /// Time until what waits now is done.
        retry_after: Duration,
    },
    /// The answer would be later than the objective or the request's deadline allows.
    #[error(
        "the answer is expected after {} ms, too late for 99 of 100 like it to meet the objective \
         (--slo) or the deadline (x-request-timeout-ms); try again later", expected.as_millis()
    )]
    Overloaded {
        /// How long the request is expected to take. May be below the objective, which has a margin.
        expected: Duration,
        /// Time until a request like this would be admitted.
        retry_after: Duration,
        /// Whether the objective would be kept, and only the request's own deadline would not.
        keeps_objective: bool,
    },
    /// The bodies that are being received use all memory for bodies.
    #[error("{max} bytes of bodies are in memory already (--max-body-memory); try again later")]
    BodyMemory {
        /// The limit in bytes.
        max: usize,
    },
    /// The request's deadline passed before its answer was ready.
    #[error(
        "the request's time is up (x-request-timeout-ms or --request-timeout); give it more, or \
         ask when less is waiting"
    )]
    Deadline,
    /// Even an idle server could not keep the request's deadline.
    #[error(
        "the answer takes {} ms even where nothing waits, and the request has less; give it more \
         (x-request-timeout-ms, grpc-timeout), or send fewer texts at once", alone.as_millis()
    )]
    DeadlineUnreachable {
        /// How long the request takes on an idle server.
        alone: Duration,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive in time (--body-timeout); send it at once")]
    BodyTimeout,
    /// No key, or an unknown one.
    #[error("no valid key; send one of the server's as \"Authorization: Bearer KEY\"")]
    Unauthorized,
    /// A page of another site sent a request that only operators may send.
    #[error("pages of other sites may not do this; ask without an Origin header")]
    Forbidden,
    /// The model cannot be replaced now.
    #[error("{0}")]
    Conflict(String),
    /// The new model cannot be used.
    #[error("{0}")]
    Reload(String),
    /// The request holds no text.
    #[error("the list of texts is empty; send at least one")]
    Empty,
    /// The request holds too many texts.
    #[error("{found} texts in one request, at most {max} are taken (--max-texts); split the list")]
    TooManyTexts {
        /// Texts in the request.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The body or the query string does not have the format it claims.
    #[error("{0}")]
    Malformed(String),
    /// The request is well-formed but invalid.
    #[error("{0}")]
    Invalid(String),
    /// A text cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The body is larger than `--max-body-bytes`.
    #[error("the body is larger than {max} bytes (--max-body-bytes); send less at once")]
    BodyTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// This route does not accept the body's media type.
    #[error(
        "{} is not read here; send application/json (to /predict also a form or an event)",
        shown(found)
    )]
    MediaType {
        /// The request's Content-Type.
        found: String,
    },
    /// More text than `/tokenize` accepts at once.
    #[error("{found} bytes of text, at most {max} are tokenized at once; send less")]
    TooMuchText {
        /// Bytes in the request.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// An event in an unsupported format.
    #[error(
        "events as {} are not read here; send application/cloudevents+json or the binary mode",
        shown(found)
    )]
    EventFormat {
        /// The request's Content-Type.
        found: String,
    },
    /// An event's data has an unsupported media type.
    #[error(
        "an event's data of type {} is not read here; send JSON or text",
        shown(found)
    )]
    EventData {
        /// The data's type.
        found: String,
    },
    /// An event without data, such as a Kafka record without a value.
    #[error("the event has no data; put the text into it or into ?query=")]
    NoData,
    /// There is no model of that name.
    #[error("no such model here; this server's is {name:?} in version \"1\" (--model-name)")]
    UnknownModel {
        /// The name of this server's model.
        name: String,
    },
    /// The route exists, the method does not.
    #[error("{method} is not answered here; use {allowed}")]
    Method {
        /// The request's method.
        method: String,
        /// The allowed methods.
        allowed: &'static str,
    },
    /// There is no such route.
    #[error("nothing is served here; predictions are at /predict")]
    NotFound,
    /// The engine failed on this request's batch.
    #[error("the engine failed on this request: {0}")]
    Engine(String),
    /// The device has too little memory, even for one text alone.
    #[error("the device has no memory for this text; try again later or ask another replica")]
    OutOfMemory,
    /// The body's Content-Encoding is not supported.
    #[error(
        "Content-Encoding {} is not read here; send the body as it is",
        shown(found)
    )]
    ContentEncoding {
        /// The request's Content-Encoding.
        found: String,
    },
}

impl Refusal {
    /// The `reason` label of `intentd_refused_total`.
    pub fn reason(&self) -> &'static str {
        self.class().0
    }

    /// Who is to blame. Decides whether the request counts as load.
    pub fn blame(&self) -> Blame {
        self.class().1
    }

    fn class(&self) -> (&'static str, Blame) {
        match self {
            Self::Loading => ("loading", Blame::Load),
            Self::Unhealthy => ("unhealthy", Blame::Load),
            Self::Concurrency { .. } => ("concurrency", Blame::Load),
            Self::QueueFull { .. } | Self::ListsFull { .. } => ("queue", Blame::Load),
            Self::Overloaded { .. } => ("overload", Blame::Load),
            Self::Deadline => ("deadline", Blame::Load),
            Self::DeadlineUnreachable { .. } => ("deadline", Blame::Client),
            Self::BodyMemory { .. } | Self::OutOfMemory => ("memory", Blame::Load),
            Self::Unauthorized => ("unauthorized", Blame::Client),
            Self::Engine(_) => ("engine", Blame::Server),
            Self::Reload(_) => ("client", Blame::Server),
            Self::BodyTimeout
            | Self::Forbidden
            | Self::Conflict(_)
            | Self::Empty
            | Self::NoData
            | Self::TooMuchText { .. }
            | Self::TooManyTexts { .. }
            | Self::Malformed(_)
            | Self::Invalid(_)
            | Self::Encode(_)
            | Self::BodyTooLarge { .. }
            | Self::MediaType { .. }
            | Self::EventFormat { .. }
            | Self::EventData { .. }
            | Self::Method { .. }
            | Self::NotFound
            | Self::UnknownModel { .. }
            | Self::ContentEncoding { .. } => ("client", Blame::Client),
        }
    }

    /// Whether the server is overloaded: no permit, no slot or no time.
    pub fn is_overload(&self) -> bool {
        matches!(
            self,
            Self::Concurrency { .. }
                | Self::QueueFull { .. }
                | Self::ListsFull { .. }
                | Self::Overloaded { .. }
        )
    }

    /// When to retry, for refusals that are temporary.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Loading | Self::Unhealthy | Self::OutOfMemory | Self::BodyMemory { .. } => {
                Some(Duration::from_secs(1))
            }
            // At least 1 ms: a queue that drains at once may also fill up at once.
            Self::Concurrency { retry_after, .. }
            | Self::QueueFull { retry_after, .. }
            | Self::ListsFull { retry_after, .. }
            | Self::Overloaded { retry_after, .. } => {
                Some((*retry_after).clamp(Duration::from_millis(1), RETRY_AFTER_MAX))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_quoted_in_part() {
        let found = "\u{10ffff}".repeat(1_000_000);
        for refusal in [
            Refusal::MediaType {
                found: found.clone(),
            },
            Refusal::EventFormat {
                found: found.clone(),
            },
            Refusal::EventData {
                found: found.clone(),
            },
            Refusal::ContentEncoding { found },
        ] {
            assert!(refusal.to_string().len() < 1300);
        }
    }
}
