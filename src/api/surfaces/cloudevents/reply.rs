//! The event that answers an event.

use std::str::FromStr;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::answer_cache::EventKey;
use super::event::Cause;

/// The type of answers.
const TYPE: &str = "dev.intentd.prediction";

/// The characters encoded in a header's value (HTTP protocol binding, section 3.1.3.2).
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The `source` of answers: a URI reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSource(String);

impl FromStr for EventSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_uri = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        if !text.is_empty() && text.bytes().all(is_uri) {
            Ok(Self(text.to_owned()))
        } else {
            Err("expected a URI or a path, such as /intents/production".to_owned())
        }
    }
}

/// Whether the client asks for an event in reply, as Knative always does.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|preference| {
            let name = preference.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("reply")
        })
}

/// The attributes of the event that answers.
pub(super) fn attributes(
    EventSource(source): &EventSource,
    cause: &Cause,
    key: &EventKey,
) -> Vec<(&'static str, String)> {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let mut attributes = vec![
        ("specversion", "1.0".to_owned()),
        ("id", key.id()),
        ("source", source.clone()),
        ("type", TYPE.to_owned()),
        ("time", time),
        // CloudEvents extension "correlation".
        ("causationid", cause.id.clone()),
    ];
    attributes.extend(cause.carried.iter().cloned());
    attributes
}

/// Encodes a value for a header.
pub(super) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, ENCODED).to_string()
}

/// Makes an answer an event in binary mode.
pub(super) fn event(
    mut response: Response,
    source: &EventSource,
    cause: &Cause,
    key: &EventKey,
) -> Response {
    for (name, value) in attributes(source, cause, key) {
        let encoded = encoded(&value);
        // Names are constants in lower case, and an encoded value is visible ASCII.
        let name = HeaderName::try_from(format!("ce-{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(encoded)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Text, TooLong};

    #[test]
    fn an_answer_names_its_cause() {
        let cause = Cause {
            id: "partition:0/offset:7".to_owned(),
            source: "/a".to_owned(),
            carried: vec![("partitionkey", "schlüssel 1".to_owned())],
        };
        let key = EventKey::new(
            &cause,
            &[Text::Single("play".to_owned())],
            TooLong::Truncate,
        );
        let response = event(
            Response::default(),
            &"/intents".parse().unwrap(),
            &cause,
            &key,
        );
        let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header("ce-specversion"), "1.0");
        assert_eq!(header("ce-type"), "dev.intentd.prediction");
        assert_eq!(header("ce-source"), "/intents");
        assert_eq!(header("ce-id"), key.id());
        assert_eq!(header("ce-causationid"), "partition:0/offset:7");
        assert_eq!(header("ce-partitionkey"), "schl%C3%BCssel%201");
        assert!(humantime::parse_rfc3339(header("ce-time")).is_ok());
    }

    #[test]
    fn prefer_asks_for_a_reply() {
        let wanted = |values: &[&'static str]| {
            let name: HeaderName = "prefer".parse().unwrap();
            let values = values.iter();
            let pairs = values.map(|value| (name.clone(), HeaderValue::from_static(value)));
            is_wanted(&pairs.collect())
        };
        assert!(wanted(&["reply"]) && wanted(&["respond-async, Reply;x=1"]));
        assert!(wanted(&["wait=5", "reply"]));
        assert!(!wanted(&[]) && !wanted(&["no-reply"]));
    }

    #[test]
    fn a_source_is_a_uri_reference() {
        for good in ["/intents", "https://a.example/b?c=d#e", "urn:a:b"] {
            assert!(good.parse::<EventSource>().is_ok());
        }
        for bad in ["", "a b", "a\"", "ä"] {
            assert!(bad.parse::<EventSource>().is_err());
        }
    }
}
