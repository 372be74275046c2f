//! Records of Kafka as events (Kafka protocol binding of CloudEvents 1.0.2) and the events that answer them.
//!
//! What is no CloudEvent becomes one as Knative's KafkaSource makes it: the id says where the record is, the
//! data is the value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::event::{self, Cause, Data, Event, Mode};
use super::seen::Key;
use super::{EventSource, List, OwnAnswers, TextPointer, reply, text};
use crate::error::Refusal;
use crate::model::{Text, TooLong};
use crate::serving::Predictions;

/// What a record says.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Whether somebody gets an answer; otherwise nothing has to be named.
    pub is_answered: bool,
    /// Its place: becomes the id of what is no event.
    pub id: String,
    /// Where it comes from: becomes the source of what is no event.
    pub source: String,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its headers in their order; a name may come twice, and the last one counts.
    pub headers: Arc<[(String, Bytes)]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
}

/// Where a record is, and when it was written, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The partition's number.
    pub partition: i32,
    /// The record's in its partition.
    pub offset: i64,
    /// The time that its writer or its broker gave it.
    pub written: Option<i64>,
}

/// What KafkaSource calls the events that it makes of records.
const RECORD: &str = "dev.knative.kafka.event";

fn time(written: i64) -> String {
    let since = Duration::from_millis(u64::try_from(written).unwrap_or(0));
    // Beyond what can be written as a date, the beginning is as good as any.
    let time = SystemTime::UNIX_EPOCH.checked_add(since.min(Duration::from_secs(250_000_000_000)));
    humantime::format_rfc3339_millis(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

/// What one event of a record asks for.
pub(crate) struct Question {
    texts: Vec<Text>,
    list: List,
    /// What the answer is about, where there is one.
    about: Option<(Cause, Key)>,
}

/// An event in a record: headers with their `ce_` and the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// Attributes, each with its `ce_`, and the type of the data.
    pub headers: Vec<(String, String)>,
    /// The data.
    pub value: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&Bytes> {
        let mut headers = self.headers.iter().rev();
        let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// What the record asks for: one question for each event that can be read, and what is wrong with the
    /// first of the others, if there are such.
    ///
    /// # Errors
    /// What is wrong with all of them.
    pub(crate) fn questions(
        &self,
        pointer: Option<&TextPointer>,
    ) -> Result<(Vec<Question>, Option<Refusal>), Refusal> {
        let content_type = self.header("content-type");
        let content_type = content_type.map(|found| &found[..]);
        let has_version = self.header("ce_specversion").is_some();
        let value = self.value.clone().unwrap_or_default();
        let one = match Mode::told_by(content_type, has_version)? {
            Some(Mode::Structured) => event::structured(&value),
            Some(Mode::Binary) => self.binary(value),
            None => Ok(self.plain(value)),
            Some(Mode::Batched) => {
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
    ) -> (Vec<Question>, Option<Refusal>) {
        let question = |event: Result<Event, Refusal>| {
            let Event { cause, data } = event?;
            let (texts, list) = text::texts(data, pointer)?;
            let key = || Key::new(&cause, &texts, TooLong::Truncate);
            let key = self.is_answered.then(key);
            Ok(Question {
                texts,
                list,
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

    /// The request by which Knative's KafkaSource would deliver the record: its headers and its body. What
    /// is an event is delivered as it is; everything else becomes one.
    pub(crate) fn delivery(&self, place: Place) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        let mut set = |name: &str, value: &str| {
            // A name or a value that HTTP does not take is left out: it is none of what an event needs.
            let value = HeaderValue::try_from(reply::encoded(value));
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value) {
                headers.insert(name, value);
            }
        };
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let content_type = self.header("content-type");
        let told = content_type.map(|found| &found[..]);
        let has_version = self.header("ce_specversion").is_some();
        match Mode::told_by(told, has_version) {
            Ok(Some(Mode::Binary)) => {
                for (name, value) in self.headers.iter() {
                    let name = name.to_ascii_lowercase();
                    if let Some(name) = name.strip_prefix("ce_") {
                        set(&format!("ce-{name}"), &text(value));
                    }
                }
            }
            Ok(None) => {
                let Place {
                    partition,
                    offset,
                    written,
                } = place;
                set("ce-specversion", "1.0");
                set("ce-id", &self.id);
                set("ce-source", &self.source);
                set("ce-type", RECORD);
                set("ce-subject", &format!("partition:{partition}#{offset}"));
                if let Some(written) = written {
                    set("ce-time", &time(written));
                }
                if let Some(key) = &self.key {
                    set("ce-key", &text(key));
                    set("ce-partitionkey", &text(key));
                }
                for (name, value) in self.headers.iter() {
                    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
                    set(
                        &format!("ce-kafkaheader{}", name.to_ascii_lowercase()),
                        &text(value),
                    );
                }
            }
            // The event is the body, or what nobody here can read.
            Ok(Some(Mode::Structured | Mode::Batched)) | Err(_) => {}
        }
        if let Some(value) = told.and_then(|told| HeaderValue::from_bytes(told).ok()) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        (headers, self.value.clone().unwrap_or_default())
    }

    fn data(&self, value: Bytes) -> Data {
        let content_type = self.header("content-type");
        let text = content_type.map(|found| String::from_utf8_lossy(found).into_owned());
        Data::Bytes(text, value)
    }

    /// An event whose attributes are headers, as UTF-8 (section 3.2.3.1).
    fn binary(&self, value: Bytes) -> Result<Event, Refusal> {
        let attribute = |name: &str| {
            let Some(value) = self.header(&format!("ce_{name}")) else {
                return Ok(None);
            };
            let text = std::str::from_utf8(value);
            let text = text.map_err(|_| Refusal::Malformed(format!("ce_{name} is not UTF-8")))?;
            Ok(Some(text.to_owned()))
        };
        event::event(attribute, self.data(value))
    }

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

impl Question {
    /// Its texts, which are then not in it any more.
    pub(crate) fn take_texts(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.texts)
    }

    /// The event that answers it, if one is to.
    ///
    /// # Errors
    /// An answer that is no JSON, such as one with a score that is no number.
    pub(crate) fn answer(
        &self,
        predictions: &Predictions,
        source: &EventSource,
    ) -> Result<Option<Prediction>, Refusal> {
        let Some((cause, key)) = &self.about else {
            return Ok(None);
        };
        let answers = OwnAnswers::new(predictions, self.list);
        let value = serde_json::to_vec(&answers);
        let value = value.map_err(|error| Refusal::Engine(error.to_string()))?;
        let attributes = reply::attributes(source, cause, key).into_iter();
        let mut headers: Vec<(String, String)> = attributes
            .map(|(name, value)| (format!("ce_{name}"), value))
            .collect();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        Ok(Some(Prediction { headers, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> EventSource {
        "/intentd".parse().unwrap()
    }

    fn message(headers: &[(&str, &str)], value: &'static str) -> Message {
        let header = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()))
        };
        Message {
            is_answered: true,
            id: "partition:1/offset:7".to_owned(),
            source: "/topics/ai-info".to_owned(),
            key: Some(Bytes::from_static(b"user-7")),
            headers: headers.iter().map(header).collect(),
            value: Some(Bytes::from_static(value.as_bytes())),
        }
    }

    fn texts(message: &Message) -> Vec<Result<String, u16>> {
        let (questions, wrong) = message.questions(None).unwrap();
        let text = |mut question: Question| match &question.take_texts()[..] {
            [Text::Single(text)] => Ok(text.clone()),
            other => panic!("{other:?}"),
        };
        let wrong = wrong.map(|refusal| Err(refusal.status()));
        questions.into_iter().map(text).chain(wrong).collect()
    }

    #[test]
    fn a_record_is_an_event_in_each_way() {
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
    fn a_record_is_delivered_as_knative_does() {
        let place = Place {
            partition: 1,
            offset: 7,
            written: Some(1_500),
        };
        let (headers, body) = message(&[("Trace-Id", "a b")], "play").delivery(place);
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "partition:1/offset:7"),
            ("ce-source", "/topics/ai-info"),
            ("ce-type", "dev.knative.kafka.event"),
            ("ce-subject", "partition:1#7"),
            ("ce-time", "1970-01-01T00:00:01.500Z"),
            ("ce-key", "user-7"),
            ("ce-kafkaheadertraceid", "a%20b"),
        ] {
            assert_eq!(header(name), Some(value), "{name}");
        }
        assert_eq!((header("content-type"), &body[..]), (None, &b"play"[..]));
        let event = [
            ("ce_specversion", "1.0"),
            ("ce_id", "1"),
            ("Content-Type", "text/plain"),
        ];
        let (headers, _) = message(&event, "play").delivery(place);
        assert_eq!(headers["ce-id"], "1");
        assert_eq!(headers["content-type"], "text/plain");
        assert!(headers.get("ce-kafkaheadercontenttype").is_none());
    }

    #[test]
    fn a_tombstone_has_no_text() {
        let tombstone = Message {
            value: None,
            ..message(&[], "")
        };
        assert_eq!(texts(&tombstone), [Err(400)]);
        let avro = message(&[("content-type", "application/cloudevents+avro")], "");
        assert!(avro.questions(None).is_err());
    }

    #[test]
    fn what_is_no_event_is_named_by_its_place_and_answered_under_its_key() {
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
