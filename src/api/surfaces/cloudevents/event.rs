//! Decodes [`Event`]s: the HTTP protocol binding and the JSON event format of CloudEvents 1.0.2. Error messages never
//! repeat an event's data.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::api::json;
use crate::error::Refusal;

const VERSION: &str = "1.0";
const EXAMPLE: &str = "an event has specversion \"1.0\" and an id, a source and a type";

/// The content mode of a message: how it holds its events (HTTP protocol binding, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentMode {
    /// Attributes in headers, the data as the body.
    Binary,
    /// One event as JSON.
    Structured,
    /// A list of events as JSON.
    Batched,
}

impl ContentMode {
    /// The mode of a request; `None` if it holds no event.
    ///
    /// # Errors
    /// An event format other than JSON.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        Self::detect(content_type, headers.contains_key("ce-specversion"))
    }

    /// The mode of a message with this content type, and with or without the attribute `specversion` in its headers.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn detect(
        content_type: Option<&[u8]>,
        has_version: bool,
    ) -> Result<Option<Self>, Refusal> {
        let found = content_type.unwrap_or_default().to_ascii_lowercase();
        let essence = found.split(|byte| *byte == b';').next().unwrap_or_default();
        let mode = match essence.trim_ascii() {
            b"application/cloudevents+json" => Self::Structured,
            b"application/cloudevents-batch+json" => Self::Batched,
            other if other.starts_with(b"application/cloudevents") => {
                let found = String::from_utf8_lossy(other).into_owned();
                return Err(Refusal::EventFormat { found });
            }
            _ if has_version => Self::Binary,
            _ => return Ok(None),
        };
        Ok(Some(mode))
    }
}

/// The data of an event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EventData {
    /// Bytes, and their media type if it is declared.
    Bytes(Option<String>, Bytes),
    /// JSON.
    Json(Value),
}

/// An event, without the attributes that are not used here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) cause: Cause,
    pub(super) data: EventData,
}

/// What an answer repeats of the event that caused it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cause {
    pub(super) id: String,
    pub(super) source: String,
    /// Extensions: the key by which brokers order events, and the id of the flow that they belong to.
    pub(super) carried: Vec<(&'static str, String)>,
}

/// The most bytes of an attribute. Encoded it is up to three times as long, and clients accept about ten thousand
/// bytes of headers in total.
pub(super) const ATTRIBUTE_MAX: usize = 2048;

/// Extensions that an answer repeats (CloudEvents extensions "partitioning" and "correlation").
const CARRIED: [&str; 2] = ["partitionkey", "correlationid"];

/// Makes an event; `attribute` looks up an attribute by its name.
pub(super) fn event(
    attribute: impl Fn(&str) -> Result<Option<String>, Refusal>,
    data: EventData,
) -> Result<Event, Refusal> {
    let malformed = |what: String| Refusal::Malformed(format!("{what}; {EXAMPLE}"));
    let required = |name: &str| match attribute(name)? {
        Some(value) if value.len() > ATTRIBUTE_MAX => Err(malformed(format!(
            "the event's {name} is longer than {ATTRIBUTE_MAX} bytes"
        ))),
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(malformed(format!("the event has no {name}"))),
    };
    if required("specversion")? != VERSION {
        let what = "the event is not of CloudEvents 1.0".to_owned();
        return Err(malformed(what));
    }
    required("type")?;
    let mut carried = Vec::new();
    for name in CARRIED {
        let fits = |value: &String| !value.is_empty() && value.len() <= ATTRIBUTE_MAX;
        // What is only repeated never decides whether the text is answered.
        if let Some(value) = attribute(name).ok().flatten().filter(fits) {
            carried.push((name, value));
        }
    }
    let cause = Cause {
        id: required("id")?,
        source: required("source")?,
        carried,
    };
    Ok(Event { cause, data })
}

/// Decodes an event whose attributes are headers.
pub(super) fn binary(headers: &HeaderMap, body: Bytes) -> Result<Event, Refusal> {
    let attribute = |name: &str| {
        let value = headers.get(format!("ce-{name}"));
        Ok(value.map(|value| decoded(value.as_bytes())))
    };
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type =
        content_type.map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned());
    event(attribute, EventData::Bytes(content_type, body))
}

/// Decodes a header's value (HTTP protocol binding, section 3.1.3.2): unquotes it, then percent-decodes it once.
fn decoded(value: &[u8]) -> String {
    let value = value.trim_ascii();
    let inner = match value {
        [b'"', inner @ .., b'"'] => Cow::Owned(unescaped(inner)),
        _ => Cow::Borrowed(value),
    };
    let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode(&inner).into();
    text_of(&bytes)
}

/// The text of an attribute: UTF-8, or else Latin-1, which is what Knative's KafkaSource writes.
pub(super) fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// Removes the backslashes of a quoted string (RFC 9110, section 5.6.4).
fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => *rest.next().unwrap_or(byte),
            _ => *byte,
        });
    }
    bytes
}

/// Decodes an event in structured mode.
pub(super) fn structured(body: &[u8]) -> Result<Event, Refusal> {
    let value = parse(body)?;
    object(value)
}

/// Decodes a batch. Each event has its own result, since one that cannot be read does not affect the others. They
/// are decoded lazily: the refusal of an event takes a hundred times its bytes.
pub(super) fn batched(
    body: &[u8],
) -> Result<impl ExactSizeIterator<Item = Result<Event, Refusal>>, Refusal> {
    match parse(body)? {
        Value::Array(items) => Ok(items.into_iter().map(object)),
        _ => Err(Refusal::Malformed(format!(
            "the batch of events is not a JSON array; {EXAMPLE}"
        ))),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    json::parse(body).map_err(|error| {
        error.refusal(|error| {
            Refusal::Malformed(format!("the event is not JSON ({error}); {EXAMPLE}"))
        })
    })
}

/// Decodes an event in the JSON event format.
fn object(value: Value) -> Result<Event, Refusal> {
    let Value::Object(mut map) = value else {
        let what = format!("the event is not a JSON object; {EXAMPLE}");
        return Err(Refusal::Malformed(what));
    };
    let data = data(&mut map)?;
    let attribute = |name: &str| match map.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        // The JSON form of an integer or a boolean is its form as a string (CloudEvents, "Type System").
        Some(value @ (Value::Number(_) | Value::Bool(_))) if CARRIED.contains(&name) => {
            Ok(Some(value.to_string()))
        }
        Some(_) => Err(Refusal::Malformed(format!(
            "the event's {name} is not a string"
        ))),
    };
    event(attribute, data)
}

/// Takes `data` or `data_base64` out of an event (JSON event format, section 3.1).
fn data(map: &mut Map<String, Value>) -> Result<EventData, Refusal> {
    let content_type = map.get("datacontenttype").and_then(Value::as_str);
    let content_type = content_type.map(str::to_owned);
    match (map.remove("data"), map.remove("data_base64")) {
        (Some(_), Some(_)) => {
            let what = "the event has both data and data_base64; send one of them";
            Err(Refusal::Malformed(what.to_owned()))
        }
        (None, Some(Value::String(text))) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(EventData::Bytes(content_type, bytes.into())),
            Err(_) => {
                let what = "the event's data_base64 is not base64";
                Err(Refusal::Malformed(what.to_owned()))
            }
        },
        (None, Some(_)) => {
            let what = "the event's data_base64 is not a string";
            Err(Refusal::Malformed(what.to_owned()))
        }
        (None, None) => Ok(EventData::Bytes(content_type, Bytes::new())),
        // With a type other than JSON, a string is the data itself.
        (Some(Value::String(text)), None) if !is_json(content_type.as_deref()) => {
            Ok(EventData::Bytes(content_type, text.into()))
        }
        (Some(value), None) => Ok(EventData::Json(value)),
    }
}

/// Whether data of this type is JSON in the JSON event format, where JSON is the default.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    content_type
        .parse::<mime::Mime>()
        .is_ok_and(|mime| mime.subtype() == mime::JSON || mime.suffix() == Some(mime::JSON))
}

#[cfg(test)]
mod tests;
