//! CloudEvents 1.0 over HTTP, on `POST /` and `POST /predict`: what Knative's KafkaSource, Brokers and
//! Sequences send, and the events that answer them.
//!
//! Statuses are chosen for how Knative goes on (knative/specs, "Event delivery"): it tries again after
//! 404, 408, 409, 429 and what is above 499, and gives everything else to the dead-letter sink, with the
//! header `kne-reason` as an extension.

mod event;
pub(crate) mod record;
mod reply;
mod seen;
mod text;

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use self::event::{Cause, Event, Mode};
pub use self::reply::EventSource;
use self::seen::{Key, Seen};
pub use self::text::TextPointer;
use super::Shared;
use super::accept::{Form, choose};
use super::answer::{OwnAnswers, encode};
use super::request::{List, identity_only, query_of};
use crate::error::Refusal;
use crate::metrics::Surface;
use crate::model::{Text, TooLong};
use crate::serving::{Offer, Predictions, Request};

/// Becomes the extension `reason` of an event that goes to the dead-letter sink.
const REASON: HeaderName = HeaderName::from_static("kne-reason");

/// What is done with events.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// Where the text is in an event's data, if that is set.
    pub pointer: Option<TextPointer>,
    /// The source of the events that answer.
    pub source: EventSource,
    /// Events whose answers are kept, so that one that is delivered again costs nothing; 0 for none.
    pub kept: usize,
}

/// What the routes share of it.
#[derive(Debug)]
pub(super) struct Events {
    settings: EventSettings,
    seen: Seen,
}

impl Events {
    pub(super) fn new(settings: &EventSettings) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            seen: Seen::new(settings.kept),
        })
    }
}

/// An event and the texts that are to be classified for it.
#[derive(Debug)]
pub struct Asked {
    cause: Cause,
    key: Key,
    texts: Vec<Text>,
    list: List,
}

impl Asked {
    /// What an event asks for: its own texts, or those that whoever sent it here has set.
    ///
    /// # Errors
    /// Data without texts.
    fn new(
        Event { cause, data }: Event,
        instead: Option<&str>,
        (pointer, too_long): (Option<&TextPointer>, TooLong),
    ) -> Result<Self, Refusal> {
        let (texts, list) = match instead {
            Some(text) => (vec![Text::Single(text.to_owned())], List::No),
            None => text::texts(data, pointer)?,
        };
        let key = Key::new(&cause, &texts, too_long);
        Ok(Self {
            cause,
            key,
            texts,
            list,
        })
    }

    /// The event's id and its source.
    pub fn name(&self) -> (&str, &str) {
        (&self.cause.id, &self.cause.source)
    }

    /// Extensions that an answer carries on.
    pub fn carried(&self) -> &[(&'static str, String)] {
        &self.cause.carried
    }

    /// What is to be classified.
    pub fn texts(&self) -> &[Text] {
        &self.texts
    }

    /// The headers of the event that answers it.
    pub fn answer_headers(&self, source: &EventSource) -> HeaderMap {
        let answer = reply::event(Response::default(), source, &self.cause, &self.key);
        answer.into_parts().0.headers
    }
}

/// An event and its answer.
struct Answered {
    cause: Cause,
    key: Key,
    list: List,
    predictions: Arc<Predictions>,
}

/// One event's answer in the answer to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventAnswer {
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

impl From<Result<Answered, Refusal>> for EventAnswer {
    fn from(answered: Result<Answered, Refusal>) -> Self {
        match answered {
            Ok(answered) => Self {
                id: Some(answered.cause.id),
                source: Some(answered.cause.source),
                status: 200,
                prediction: Some(OwnAnswers::new(&answered.predictions, answered.list)),
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
pub(super) fn is_event(headers: &HeaderMap) -> bool {
    !matches!(Mode::of(headers), Ok(None))
}

/// Answers a request that [`is_event`].
pub(super) async fn answer(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let answered = answer_events(shared, uri, headers, body).await;
    answered.unwrap_or_else(|refusal| {
        let reason = HeaderValue::from_static(refusal.error_type());
        let mut response = refusal.into_response();
        response.headers_mut().insert(REASON, reason);
        response
    })
}

async fn answer_events(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let mut offer = shared.offer(Surface::CloudEvents, headers)?;
    let pointer = shared.events.settings.pointer.as_ref();
    let max = shared.classifier.limits().texts_max;
    let read = |body| decode((uri, headers, body), pointer, max);
    let received = shared.receive(&mut offer, headers, body, read).await;
    let ((mode, asked, too_long), held) = match received {
        Ok(decoded) => decoded,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let mut answers = classify(shared, offer, asked, too_long).await?;
    if mode == Mode::Batched {
        let answers: Vec<EventAnswer> = answers.into_iter().map(EventAnswer::from).collect();
        return Ok(held.carry(Json(answers).into_response()));
    }
    let Some(Ok(answered)) = answers.pop() else {
        // One event that cannot be read is refused by `classify`.
        return Err(Refusal::Empty);
    };
    let (predictions, list) = (&answered.predictions, answered.list);
    let response = if reply::is_wanted(headers) {
        let response = encode(predictions, Form::Json, list);
        let source = &shared.events.settings.source;
        reply::event(response, source, &answered.cause, &answered.key)
    } else {
        let form = choose(headers, &[Form::Json, Form::Html, Form::Plain]);
        encode(predictions, form, list)
    };
    Ok(held.carry(response))
}

/// The events of a request and what to do with texts that are too long.
type Decoded = (Mode, Vec<Result<Asked, Refusal>>, TooLong);

fn decode(
    (uri, headers, body): (&Uri, &HeaderMap, Bytes),
    pointer: Option<&TextPointer>,
    texts_max: usize,
) -> Result<Decoded, Refusal> {
    identity_only(headers)?;
    let mode = Mode::of(headers)?.unwrap_or(Mode::Binary);
    let query = query_of(uri)?;
    let events = match mode {
        Mode::Binary => vec![event::binary(headers, body)],
        Mode::Structured => vec![event::structured(&body)],
        Mode::Batched => {
            let events = event::batched(&body)?;
            let (found, max) = (events.len(), texts_max);
            if found > max {
                return Err(Refusal::TooManyTexts { found, max });
            }
            events.collect()
        }
    };
    let (query, too_long) = query.map_or((None, TooLong::Truncate), |(query, too_long)| {
        (Some(query), too_long)
    });
    // The sink's address wins: whoever wrote `?query=` into it meant it.
    let asked =
        |event: Result<Event, Refusal>| Asked::new(event?, query.as_deref(), (pointer, too_long));
    let asked = events.into_iter().map(asked).collect();
    Ok((mode, asked, too_long))
}

/// Events, each with what is wrong with it, and what to do with texts that are too long.
pub(super) type AskedEvents = (Vec<Result<Asked, Refusal>>, TooLong);

/// What a request's events ask for, however it holds them.
pub(super) fn asked(
    request: (&Uri, &HeaderMap, Bytes),
    pointer: Option<&TextPointer>,
    texts_max: usize,
) -> Result<AskedEvents, Refusal> {
    let (_, asked, too_long) = decode(request, pointer, texts_max)?;
    Ok((asked, too_long))
}

/// Classifies the texts of all events at once: they are admitted together or not at all.
///
/// # Errors
/// What refuses all of them, and what is wrong with the first when something is wrong with each.
async fn classify(
    shared: &Shared,
    offer: Offer<'_>,
    asked: Vec<Result<Asked, Refusal>>,
    too_long: TooLong,
) -> Result<Vec<Result<Answered, Refusal>>, Refusal> {
    if let Some(Err(refusal)) = asked.first()
        && asked.iter().all(Result::is_err)
    {
        return Err(offer.refuse(refusal.clone()));
    }
    let seen = &shared.events.seen;
    let generation = shared.classifier.generation();
    let mut texts = Vec::new();
    let mut entries = Vec::with_capacity(asked.len());
    for asked in asked {
        entries.push(asked.map(|asked| {
            let known = seen.recall(&asked.key, generation);
            let count = asked.texts.len();
            if known.is_none() {
                texts.extend(asked.texts);
            }
            (asked.cause, asked.key, asked.list, known.ok_or(count))
        }));
    }
    let mut all = if texts.is_empty() {
        offer.answer_without_engine();
        None
    } else {
        Some(offer.classify(Request { texts, too_long }).await?)
    };
    let mut answered = |(cause, key, list, known): (Cause, Key, List, Result<_, usize>)| {
        let predictions = known.unwrap_or_else(|count| {
            // There are some: this event's texts are among those that were classified.
            let predictions = all.as_mut().map(|all| all.take(count));
            let predictions = Arc::new(predictions.unwrap_or_default());
            seen.remember(&key, &predictions);
            predictions
        });
        Answered {
            cause,
            key,
            list,
            predictions,
        }
    };
    Ok(entries
        .into_iter()
        .map(|entry| entry.map(&mut answered))
        .collect())
}
