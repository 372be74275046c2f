//! Records of Kafka as events (Kafka protocol binding of CloudEvents 1.0.2), and the events that answer them.
//!
//! A record that is not a CloudEvent becomes one as in Knative's KafkaSource: its id is the record's partition and
//! offset, its data is the value.

use std::sync::Arc;

use axum::body::Bytes;

use super::answer_cache::EventKey;
use super::event::{self, Cause, ContentMode, Event, EventData};
use super::reply::{self, EventSource};
use super::text::{self, TextPointer};
use crate::api::answer::OwnAnswers;
use crate::api::request::{Arity, TextList};
use crate::error::Refusal;
use crate::model::{Text, TooLong};
use crate::serving::Predictions;

/// A record, with the attributes it gets if it is not an event.
#[derive(Debug, Clone, Default)]
pub struct EventRecord {
    /// Whether answers are published; otherwise no keys for them are computed.
    pub is_answered: bool,
    /// The id of the event if the record is not one: its partition and offset.
    pub id: String,
    /// The source of the event if the record is not one.
    pub source: String,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its headers in order. A name may occur twice; the last one counts.
    pub headers: Arc<[(String, Bytes)]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
}

/// The texts of one event in a record, and what its answer refers to.
pub(crate) struct EventQuestion {
    texts: Vec<Text>,
    arity: Arity,
    /// The event that an answer refers to, if answers are published.
    about: Option<(Cause, EventKey)>,
}

/// An answer as a record: an event in binary mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAnswer {
    /// The attributes with the prefix `ce_`, and the content type.
    pub headers: Vec<(String, String)>,
    /// The data.
    pub value: Vec<u8>,
}

impl EventRecord {
    /// The last header of this name.
    pub(super) fn header(&self, name: &str) -> Option<&Bytes> {
        let mut headers = self.headers.iter().rev();
        let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// A question for each event that can be read, and what is wrong with the first of the others, if there are any.
    ///
    /// # Errors
    /// What is wrong with the record as a whole.
    pub(crate) fn questions(
        &self,
        pointer: Option<&TextPointer>,
    ) -> Result<(Vec<EventQuestion>, Option<Refusal>), Refusal> {
        let content_type = self.header("content-type");
        let content_type = content_type.map(|found| &found[..]);
        let has_version = self.header("ce_specversion").is_some();
        let value = self.value.clone().unwrap_or_default();
        let one = match ContentMode::detect(content_type, has_version)? {
            Some(ContentMode::Structured) => event::structured(&value),
            Some(ContentMode::Binary) => self.binary(value),
            None => Ok(self.plain(value)),
            Some(ContentMode::Batched) => {
                let events = event::batched(&value)?;
                return Ok(self.ask(events, pointer));
            }
        };
        Ok(self.ask(std::iter::once(one), pointer))
    }

    fn ask(
        &self,
        events: impl Iterator<Item = Result<Event, Refusal>>,
        pointer: Option<&TextPointer>,
    ) -> (Vec<EventQuestion>, Option<Refusal>) {
        let question = |event: Result<Event, Refusal>| {
            let Event { cause, data } = event?;
            let TextList { texts, arity } = text::texts(data, pointer)?;
            let key = || EventKey::new(&cause, &texts, TooLong::Truncate);
            let key = self.is_answered.then(key);
            Ok(EventQuestion {
                texts,
                arity,
                about: key.map(|key| (cause, key)),
            })
        };
        let (mut questions, mut wrong) = (Vec::new(), None);
        for event in events {
            match question(event) {
                Ok(question) => questions.push(question),
                Err(refusal) => wrong = wrong.or(Some(refusal)),
            }
        }
        (questions, wrong)
    }

    fn data(&self, value: Bytes) -> EventData {
        let content_type = self.header("content-type");
        let text = content_type.map(|found| String::from_utf8_lossy(found).into_owned());
        EventData::Bytes(text, value)
    }

    /// Decodes an event whose attributes are headers, in UTF-8 (section 3.2.3.1).
    fn binary(&self, value: Bytes) -> Result<Event, Refusal> {
        let attribute = |name: &str| {
            let value = self.header(&format!("ce_{name}"));
            Ok(value.map(|value| event::text_of(value)))
        };
        event::event(attribute, self.data(value))
    }

    /// Makes an event of a record that is not one.
    fn plain(&self, value: Bytes) -> Event {
        let key = self
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok());
        let key = key.filter(|key| !key.is_empty() && key.len() <= event::ATTRIBUTE_MAX);
        Event {
            cause: Cause {
                id: self.id.clone(),
                source: self.source.clone(),
                carried: key
                    .map(|key| ("partitionkey", key.to_owned()))
                    .into_iter()
                    .collect(),
            },
            data: self.data(value),
        }
    }
}

impl EventQuestion {
    /// Takes its texts out.
    pub(crate) fn take_texts(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.texts)
    }

    /// The event that answers it, if answers are published.
    ///
    /// # Errors
    /// An answer that cannot be JSON, such as a score that is not a number.
    pub(crate) fn answer(
        &self,
        predictions: &Predictions,
        source: &EventSource,
    ) -> Result<Option<RecordAnswer>, Refusal> {
        let Some((cause, key)) = &self.about else {
            return Ok(None);
        };
        let answers = OwnAnswers::new(predictions, self.arity);
        let value = serde_json::to_vec(&answers);
        let value = value.map_err(|error| Refusal::Engine(error.to_string()))?;
        let attributes = reply::attributes(source, cause, key).into_iter();
        let mut headers: Vec<(String, String)> = attributes
            .map(|(name, value)| (format!("ce_{name}"), value))
            .collect();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        Ok(Some(RecordAnswer { headers, value }))
    }
}

/// The texts of one event of a record, and its answer, if it gets one.
type DecodedQuestion = (Vec<Text>, Option<RecordAnswer>);

/// Decodes a record: the texts of each event that can be read, with the event that would answer it, and what is wrong
/// with the first of the others, if there are any.
///
/// # Errors
/// What is wrong with the record as a whole; a [`Refusal`] that never repeats its data.
pub fn decode_record(
    record: &EventRecord,
    pointer: Option<&TextPointer>,
    source: &EventSource,
) -> Result<(Vec<DecodedQuestion>, Option<Refusal>), Refusal> {
    let decoded = |mut question: EventQuestion| {
        let answer = question.answer(&Predictions::default(), source)?;
        Ok((question.take_texts(), answer))
    };
    let (questions, wrong) = record.questions(pointer)?;
    let questions: Result<_, Refusal> = questions.into_iter().map(decoded).collect();
    Ok((questions?, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> EventSource {
        "/intentd".parse().unwrap()
    }

    fn message(headers: &[(&str, &str)], value: &'static str) -> EventRecord {
        let header = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()))
        };
        EventRecord {
            is_answered: true,
            id: "partition:1/offset:7".to_owned(),
            source: "/topics/ai-info".to_owned(),
            key: Some(Bytes::from_static(b"user-7")),
            headers: headers.iter().map(header).collect(),
            value: Some(Bytes::from_static(value.as_bytes())),
        }
    }

    fn texts(message: &EventRecord) -> Vec<Result<String, u16>> {
        let (questions, wrong) = message.questions(None).unwrap();
        let text = |mut question: EventQuestion| match &question.take_texts()[..] {
            [Text::Single(text)] => Ok(text.clone()),
            other => panic!("{other:?}"),
        };
        let wrong = wrong.map(|refusal| Err(refusal.status()));
        questions.into_iter().map(text).chain(wrong).collect()
    }

    #[test]
    fn a_record_is_an_event_in_every_mode() {
        let play = || vec![Ok("play".to_owned())];
        assert_eq!(texts(&message(&[], "play")), play());
        assert_eq!(texts(&message(&[], r#"{"query": "play"}"#)), play());
        let json = [("Content-Type", "application/json")];
        assert_eq!(texts(&message(&json, r#""play""#)), play());
        let binary = [
            ("ce_specversion", "1.0"),
            ("ce_id", "1"),
            ("ce_source", "/a"),
            ("ce_type", "t"),
            ("content-type", "text/plain"),
        ];
        assert_eq!(texts(&message(&binary, "play")), play());
        assert_eq!(texts(&message(&binary[..3], "play")), [Err(400)]);
        let event = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":"play"}"#;
        let structured = [("content-type", "application/cloudevents+json")];
        assert_eq!(texts(&message(&structured, event)), play());
        let batch =
            r#"[7, {"specversion":"1.0","id":"1","source":"/a","type":"t","data":"play"}, 7]"#;
        let batched = [("content-type", "application/cloudevents-batch+json")];
        assert_eq!(
            texts(&message(&batched, batch)),
            [Ok("play".to_owned()), Err(400)]
        );
    }

    #[test]
    fn a_tombstone_has_no_text() {
        let tombstone = EventRecord {
            value: None,
            ..message(&[], "")
        };
        assert_eq!(texts(&tombstone), [Err(400)]);
        let avro = message(&[("content-type", "application/cloudevents+avro")], "");
        assert!(avro.questions(None).is_err());
    }

    #[test]
    fn a_record_that_is_not_an_event_is_identified_by_its_place_and_answered_with_its_key() {
        let (mut questions, _) = message(&[], "play").questions(None).unwrap();
        let question = questions.pop().unwrap();
        let answered = question.answer(&Predictions::default(), &source());
        let answered = answered.unwrap().unwrap();
        let header = |name: &str| {
            let mut headers = answered.headers.iter();
            headers
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(header("ce_causationid"), Some("partition:1/offset:7"));
        assert_eq!(header("ce_partitionkey"), Some("user-7"));
        assert_eq!(header("ce_source"), Some("/intentd"));
        assert_eq!(header("ce_type"), Some("dev.intentd.prediction"));
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(answered.value, b"[]");
    }
}
