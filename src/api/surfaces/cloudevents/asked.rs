//! The events of a request, decoded: the texts of each and what its answer refers to.

use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::answer_cache::EventKey;
use super::event::{self, Cause, ContentMode, Event};
use super::reply::{self, EventSource};
use super::text::{self, TextPointer};
use crate::api::content::require_identity;
use crate::api::request::{Arity, TextList, TextParameters};
use crate::error::Refusal;
use crate::model::{Text, TooLong};

/// An event and the texts to be classified for it.
#[derive(Debug)]
pub struct AskedEvent {
    pub(super) cause: Cause,
    pub(super) key: EventKey,
    pub(super) texts: Vec<Text>,
    pub(super) arity: Arity,
}

impl AskedEvent {
    /// The texts that `event` asks for: `replacement` from the address of the sink, or those in its data.
    ///
    /// # Errors
    /// Data without texts.
    fn new(
        event: Event,
        replacement: Option<&str>,
        pointer: Option<&TextPointer>,
        too_long: TooLong,
    ) -> Result<Self, Refusal> {
        let Event { cause, data } = event;
        let TextList { texts, arity } = match replacement {
            Some(text) => TextList::single(Text::Single(text.to_owned())),
            None => text::texts(data, pointer)?,
        };
        let key = EventKey::new(&cause, &texts, too_long);
        Ok(Self {
            cause,
            key,
            texts,
            arity,
        })
    }

    /// The event's id and its source.
    pub fn name(&self) -> (&str, &str) {
        (&self.cause.id, &self.cause.source)
    }

    /// The extensions that an answer repeats.
    pub fn carried(&self) -> &[(&'static str, String)] {
        &self.cause.carried
    }

    /// The texts to be classified.
    pub fn texts(&self) -> &[Text] {
        &self.texts
    }

    /// The headers of the event that answers it.
    pub fn answer_headers(&self, source: &EventSource) -> HeaderMap {
        let answer = reply::event(Response::default(), source, &self.cause, &self.key);
        answer.into_parts().0.headers
    }
}

/// The events of a request.
pub(super) struct AskedEvents {
    pub(super) mode: ContentMode,
    /// Each event, or what is wrong with it.
    pub(super) events: Vec<Result<AskedEvent, Refusal>>,
    pub(super) too_long: TooLong,
}

/// Decodes the events of a request.
///
/// # Errors
/// What is wrong with the request as a whole; what is wrong with one event is in its place.
pub(super) fn decode(
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
    pointer: Option<&TextPointer>,
    texts_max: usize,
) -> Result<AskedEvents, Refusal> {
    require_identity(headers)?;
    let mode = ContentMode::of(headers)?.unwrap_or(ContentMode::Binary);
    let parameters = TextParameters::of(uri)?;
    let events = match mode {
        ContentMode::Binary => vec![event::binary(headers, body)],
        ContentMode::Structured => vec![event::structured(&body)],
        ContentMode::Batched => {
            let events = event::batched(&body)?;
            let (found, max) = (events.len(), texts_max);
            if found > max {
                return Err(Refusal::TooManyTexts { found, max });
            }
            events.collect()
        }
    };
    // A text in the sink's address takes precedence over the events' data.
    let (replacement, too_long) = match parameters {
        Some(TextParameters { text, too_long }) => (Some(text), too_long),
        None => (None, TooLong::Truncate),
    };
    let asked = |event: Result<Event, Refusal>| {
        AskedEvent::new(event?, replacement.as_deref(), pointer, too_long)
    };
    Ok(AskedEvents {
        mode,
        events: events.into_iter().map(asked).collect(),
        too_long,
    })
}

/// The events of a `POST /predict`, each with what is wrong with it, and what to do with texts that are too long.
/// `pointer` gives the position of the text in an event's data.
///
/// # Errors
/// What is wrong with the request as a whole, such as more than `texts_max` events; a [`Refusal`] that never
/// repeats their data.
pub fn decode_events(
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
    pointer: Option<&TextPointer>,
    texts_max: usize,
) -> Result<(Vec<Result<AskedEvent, Refusal>>, TooLong), Refusal> {
    let asked = decode(uri, headers, body, pointer, texts_max)?;
    Ok((asked.events, asked.too_long))
}
