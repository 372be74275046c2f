//! CloudEvents over HTTP: requests with events, and their answers.
//!
//! Statuses follow Knative's rules of delivery (knative/specs, "Event delivery"): it retries after 404, 408, 409, 429
//! and everything above 499, and sends everything else to the dead-letter sink, with the header `kne-reason` as an
//! extension.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use super::answer_cache::EventKey;
use super::asked::{AskedEvent, AskedEvents, decode};
use super::event::{Cause, ContentMode};
use super::reply;
use crate::api::accept::{AnswerFormat, choose};
use crate::api::answer::{OwnAnswers, encode};
use crate::api::request::Arity;
use crate::api::state::ApiState;
use crate::api::surface::Surface;
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;
use crate::serving::{Offer, Predictions, Request};

/// The surface. Its requests come on the routes of `/predict`, which pass events on.
pub(crate) static SURFACE: Surface = Surface {
    label: SurfaceLabel::new("cloudevents"),
    title: "CloudEvents",
    routes: &[],
    guard: None,
    openapi: Some(EventDocument::openapi),
    fuzz_targets: &["event_request", "event_record"],
};

#[derive(OpenApi)]
#[openapi(components(schemas(EventRequest, EventAnswer)))]
struct EventDocument;

/// Becomes the extension `reason` of an event in the dead-letter sink.
const REASON: HeaderName = HeaderName::from_static("kne-reason");

/// An event and its predictions.
struct AnsweredEvent {
    cause: Cause,
    key: EventKey,
    arity: Arity,
    predictions: Arc<Predictions>,
}

/// A CloudEvent in structured mode. In binary mode its attributes are headers `ce-…` and its data is the
/// body.
#[derive(ToSchema)]
#[schema(example = json!({
    "specversion": "1.0", "id": "1", "source": "/console", "type": "message", "data": "play some jazz"
}))]
#[expect(dead_code, reason = "a description")]
pub(crate) struct EventRequest {
    /// "1.0".
    #[schema(min_length = 1)]
    specversion: String,
    #[schema(min_length = 1)]
    id: String,
    #[schema(min_length = 1)]
    source: String,
    #[schema(min_length = 1)]
    r#type: String,
    /// The type of the data; JSON when nothing is said.
    datacontenttype: Option<String>,
    /// A text, a list of texts, or an object with `query`, `text` or `inputs` (--event-text-pointer).
    data: Option<Value>,
}

/// One event's answer in the answer to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventAnswer {
    /// The event's id; absent when the event could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The event's source; absent when the event could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// What the status would be, had the event come alone.
    status: u16,
    /// Present with status 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<OwnAnswers>,
    /// Present with any other status.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Present with any other status.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
}

impl From<Result<AnsweredEvent, Refusal>> for EventAnswer {
    fn from(answered: Result<AnsweredEvent, Refusal>) -> Self {
        match answered {
            Ok(answered) => Self {
                id: Some(answered.cause.id),
                source: Some(answered.cause.source),
                status: 200,
                prediction: Some(OwnAnswers::new(&answered.predictions, answered.arity)),
                error: None,
                error_type: None,
            },
            Err(refusal) => Self {
                id: None,
                source: None,
                status: refusal.status(),
                prediction: None,
                error: Some(refusal.to_string()),
                error_type: Some(refusal.error_type()),
            },
        }
    }
}

/// Whether a request holds events, or claims to.
pub(crate) fn is_event(headers: &HeaderMap) -> bool {
    !matches!(ContentMode::of(headers), Ok(None))
}

/// Answers a request that [`is_event`].
pub(crate) async fn answer(
    state: &ApiState,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let answered = answer_events(state, uri, headers, body).await;
    let response = answered.unwrap_or_else(|refusal| {
        let reason = HeaderValue::from_static(refusal.error_type());
        let mut response = refusal.into_response();
        response.headers_mut().insert(REASON, reason);
        response
    });
    state.finish(SURFACE.label, headers, response)
}

async fn answer_events(
    state: &ApiState,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let mut offer = state.offer(SURFACE.label, headers)?;
    let settings = &state.events.settings;
    let (pointer, max) = (
        settings.pointer.as_ref(),
        state.classifier.limits().texts_max,
    );
    let read = |body| decode(uri, headers, body, pointer, max);
    let received = state.receive(&mut offer, headers, body, read).await;
    let (asked, reservation) = match received {
        Ok(received) => received,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let mode = asked.mode;
    let mut answers = classify(state, offer, asked).await?;
    if mode == ContentMode::Batched {
        let answers: Vec<EventAnswer> = answers.into_iter().map(EventAnswer::from).collect();
        return Ok(reservation.carry(Json(answers).into_response()));
    }
    let Some(Ok(answered)) = answers.pop() else {
        // `classify` refuses a single event that cannot be read.
        return Err(Refusal::Empty);
    };
    let (predictions, arity) = (&answered.predictions, answered.arity);
    let response = if reply::is_wanted(headers) {
        let response = encode(predictions, AnswerFormat::Json, arity);
        reply::event(response, &settings.source, &answered.cause, &answered.key)
    } else {
        let formats = [AnswerFormat::Json, AnswerFormat::Html, AnswerFormat::Plain];
        encode(predictions, choose(headers, &formats), arity)
    };
    Ok(reservation.carry(response))
}

/// Classifies the texts of all events at once: they are admitted together or not at all.
///
/// # Errors
/// What refuses all of them, and what is wrong with the first if something is wrong with each.
async fn classify(
    state: &ApiState,
    offer: Offer<'_>,
    asked: AskedEvents,
) -> Result<Vec<Result<AnsweredEvent, Refusal>>, Refusal> {
    let AskedEvents {
        events, too_long, ..
    } = asked;
    if let Some(Err(refusal)) = events.first()
        && events.iter().all(Result::is_err)
    {
        return Err(offer.refuse(refusal.clone()));
    }
    let cache = &state.events.cache;
    let generation = state.classifier.generation();
    let mut texts = Vec::new();
    let mut pending = Vec::with_capacity(events.len());
    for event in events {
        pending.push(event.map(|mut event| {
            let known = cache.recall(&event.key, generation);
            let count = event.texts.len();
            let new_texts = std::mem::take(&mut event.texts);
            if known.is_none() {
                texts.extend(new_texts);
            }
            PendingEvent {
                event,
                count,
                known,
            }
        }));
    }
    let mut all = if texts.is_empty() {
        offer.answer_without_engine();
        None
    } else {
        Some(offer.classify(Request { texts, too_long }).await?)
    };
    let mut answered = |pending: PendingEvent| {
        let PendingEvent {
            event,
            count,
            known,
        } = pending;
        let predictions = known.unwrap_or_else(|| {
            // There are some: this event's texts are among those that were classified.
            let predictions = all.as_mut().map(|all| all.take(count));
            let predictions = Arc::new(predictions.unwrap_or_default());
            cache.remember(&event.key, &predictions);
            predictions
        });
        AnsweredEvent {
            cause: event.cause,
            key: event.key,
            arity: event.arity,
            predictions,
        }
    };
    Ok(pending
        .into_iter()
        .map(|pending| pending.map(&mut answered))
        .collect())
}

/// An event whose texts are being classified, or whose answer is known.
struct PendingEvent {
    event: AskedEvent,
    /// The number of its texts.
    count: usize,
    known: Option<Arc<Predictions>>,
}
