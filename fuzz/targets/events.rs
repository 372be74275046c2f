//! CloudEvents, in requests and in records of Kafka.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use intentd::api::{
    self, AskedEvent, EventRecord, EventSource, RecordAnswer, RecordPlace, TextPointer,
};
use intentd::error::Refusal;
use intentd::model::{Text, TooLong};
use serde_json::{Map, Value};

use super::{check_bytes, check_refusal, header, headers};

/// Most events in one request.
const EVENTS_MAX: usize = 16;

/// Most bytes of an attribute.
const ATTRIBUTE_MAX: usize = 2048;

static SOURCE: LazyLock<EventSource> = LazyLock::new(|| "/intentd".parse().expect("a path"));
static HOME: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("/"));

/// The lines of a case up to the first empty line, and the rest after it.
fn parts(data: &[u8]) -> (impl Iterator<Item = &[u8]>, Option<&[u8]>) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&data[..end], Some(&data[end + 2..])),
        None => (data, None),
    };
    (head.split(|byte| *byte == b'\n'), body)
}

/// A pointer to the text; an empty text is none. `Err` if it is not a valid setting.
fn pointer(text: &str) -> Result<Option<TextPointer>, String> {
    let pointer = (!text.is_empty()).then(|| text.parse());
    pointer.transpose()
}

/// A request: the first line is the pointer to the text and, after a `?`, the query string. Then follow
/// headers and, after an empty line, the body.
pub fn event_request(data: &[u8]) {
    let (mut lines, body) = parts(data);
    let Ok(first) = std::str::from_utf8(lines.next().unwrap_or_default()) else {
        return;
    };
    let (place, query) = first.split_once('?').unwrap_or((first, ""));
    let (Ok(pointer), Ok(uri)) = (pointer(place), format!("/?{query}").parse::<Uri>()) else {
        return;
    };
    let headers = headers(lines);
    let body = body.unwrap_or_default();
    let bytes = Bytes::copy_from_slice(body);
    let decoded = api::decode_events(&uri, &headers, bytes, pointer.as_ref(), EVENTS_MAX);
    let (events, too_long) = match decoded {
        Ok(decoded) => decoded,
        Err(refusal) => return check_refusal(&refusal),
    };
    assert!(events.len() <= EVENTS_MAX);
    for event in events {
        match event {
            Ok(event) => {
                check_bytes(event.texts(), body.len() + query.len());
                check_event(&event, too_long);
            }
            Err(refusal) => check_refusal(&refusal),
        }
    }
}

/// Checks the invariants that an answer and the cache of answers rely on.
fn check_event(event: &AskedEvent, too_long: TooLong) {
    let (id, source) = event.name();
    let carried = event.carried().iter().map(|(_, value)| value.as_str());
    for attribute in carried.chain([id, source]) {
        assert!(!attribute.is_empty() && attribute.len() <= ATTRIBUTE_MAX);
    }
    assert!(!event.texts().is_empty());
    // The answer is a valid event and names its cause.
    let answer = event.answer_headers(&SOURCE);
    assert_eq!(attribute(&answer, "ce-causationid"), id);
    let answered = only(&answer, Bytes::from_static(b"x"));
    assert_eq!(answered.name(), (&*key(&answer), "/intentd"));
    assert_eq!(answered.carried(), event.carried());
    // The same event in another content mode decodes to the same event. Only a query string can refuse long
    // texts, and then it contains the text, too.
    let Some(again) = structured(event).filter(|_| too_long == TooLong::Truncate) else {
        return;
    };
    let content_type = HeaderValue::from_static("application/cloudevents+json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
    let again = only(&headers, again);
    assert_eq!(again.name(), event.name());
    assert_eq!(again.carried(), event.carried());
    assert_eq!(again.texts(), event.texts());
    assert_eq!(key(&again.answer_headers(&SOURCE)), key(&answer));
}

/// The one event of a request that is sound.
fn only(headers: &HeaderMap, body: Bytes) -> AskedEvent {
    let (events, _) = api::decode_events(&HOME, headers, body, None, 1).expect("a sound request");
    let [event] = <[_; 1]>::try_from(events).expect("one event");
    event.expect("a sound event")
}

/// The id of the answer's event.
fn key(headers: &HeaderMap) -> String {
    attribute(headers, "ce-id")
}

/// A decoded attribute of an answer.
fn attribute(headers: &HeaderMap, name: &str) -> String {
    let value = headers[name].as_bytes();
    let value = percent_encoding::percent_decode(value).decode_utf8();
    value.expect("UTF-8").into_owned()
}

/// The event as JSON. `None` if it has a pair of texts, which JSON cannot tell from a list.
fn structured(event: &AskedEvent) -> Option<Bytes> {
    let texts: Option<Vec<&str>> = event.texts().iter().map(single).collect();
    let (id, source) = event.name();
    let mut map = Map::new();
    for (name, value) in [
        ("specversion", "1.0"),
        ("type", "t"),
        ("id", id),
        ("source", source),
    ] {
        map.insert(name.to_owned(), value.into());
    }
    for (name, value) in event.carried() {
        map.insert((*name).to_owned(), value.as_str().into());
    }
    map.insert("data".to_owned(), texts?.into());
    Some(Value::Object(map).to_string().into())
}

fn single(text: &Text) -> Option<&str> {
    match text {
        Text::Single(text) => Some(text),
        Text::Pair(..) => None,
    }
}

/// A record: the first line is the pointer to the text, after a `?` the time and after another `?` the key, if
/// present. Then follow headers and, after an empty line, the value.
pub fn event_record(data: &[u8]) {
    let (mut lines, value) = parts(data);
    let mut first = lines
        .next()
        .unwrap_or_default()
        .splitn(3, |byte| *byte == b'?');
    let place = std::str::from_utf8(first.next().unwrap_or_default());
    let Some(Ok(pointer)) = place.ok().map(pointer) else {
        return;
    };
    let written = std::str::from_utf8(first.next().unwrap_or_default());
    let place = RecordPlace {
        partition: 1,
        offset: 7,
        written: written.ok().and_then(|written| written.parse().ok()),
    };
    let key = first.next().map(Bytes::copy_from_slice);
    let owned = |(name, value): (&[u8], &[u8])| {
        // librdkafka's binding returns names as strings.
        let name = String::from_utf8_lossy(name).into_owned();
        (name, Bytes::copy_from_slice(value))
    };
    let headers: Arc<[_]> = lines.filter_map(header).map(owned).collect();
    let record = EventRecord {
        is_answered: true,
        id: "partition:1/offset:7".to_owned(),
        source: "/topics/t".to_owned(),
        key,
        headers,
        value: value.map(Bytes::copy_from_slice),
    };
    let pointer = pointer.as_ref();
    let decoded = api::decode_record(&record, pointer, &SOURCE);
    let bytes = value.map_or(0, <[u8]>::len);
    match &decoded {
        Ok((questions, wrong)) => {
            questions
                .iter()
                .for_each(|(texts, _)| check_bytes(texts, bytes));
            wrong.iter().for_each(check_refusal);
        }
        Err(refusal) => check_refusal(refusal),
    }
    let (headers, body) = api::record_as_request(&record, place);
    let delivered = api::decode_events(&HOME, &headers, body, pointer, usize::MAX);
    if !survives_http(&record) {
        return;
    }
    // A record has the same result whether a topic is read directly or KafkaSource delivers it.
    let ((questions, wrong), delivered) = match (decoded, delivered) {
        (Ok(decoded), Ok((delivered, _))) => (decoded, delivered),
        (Err(one), Err(other)) => return assert_eq!(one.status(), other.status()),
        (decoded, delivered) => panic!("{:?} and {:?}", decoded.is_ok(), delivered.is_ok()),
    };
    let other = delivered.iter().find_map(|event| event.as_ref().err());
    assert_eq!(wrong.map(|one| one.status()), other.map(Refusal::status));
    let delivered: Vec<AskedEvent> = delivered.into_iter().flatten().collect();
    assert_eq!(questions.len(), delivered.len());
    for ((texts, answer), event) in questions.iter().zip(&delivered) {
        assert_eq!(texts, event.texts());
        check_answers(answer.as_ref().expect("it is answered"), event);
    }
}

/// Whether the metadata of a record can be converted to HTTP headers without loss.
fn survives_http(record: &EventRecord) -> bool {
    let is_text = |value: &Bytes| std::str::from_utf8(value).is_ok();
    let is_header = |(name, value): &(String, Bytes)| {
        is_text(value)
            && (!name.eq_ignore_ascii_case("content-type")
                || HeaderValue::from_bytes(value).is_ok())
    };
    record.key.as_ref().is_none_or(is_text) && record.headers.iter().all(is_header)
}

/// The answers to one event have the same attributes in a topic and in a response.
fn check_answers(answer: &RecordAnswer, event: &AskedEvent) {
    let headers = event.answer_headers(&SOURCE);
    for (name, value) in &answer.headers {
        // The time comes from the clock, and the content type is not an attribute.
        if name != "ce_time" && name != "content-type" {
            assert_eq!(attribute(&headers, &name.replace("ce_", "ce-")), *value);
        }
    }
}
