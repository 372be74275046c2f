//! The delivery of a record as a request, as by Knative's KafkaSource.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{ContentMode, is_json, text_of};
use super::record::EventRecord;
use super::reply;
use crate::api::json;

/// The position of a record, and the time at which it was written.
#[derive(Debug, Clone, Copy)]
pub struct RecordPlace {
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// The timestamp of its producer or broker, in milliseconds since 1970.
    pub written: Option<i64>,
}

/// The type of the events that KafkaSource makes of records.
const RECORD: &str = "dev.knative.kafka.event";

/// A timestamp as RFC 3339.
fn time(written: i64) -> String {
    let since = Duration::from_millis(u64::try_from(written).unwrap_or(0));
    // The bound keeps the year within four digits.
    let time = SystemTime::UNIX_EPOCH.checked_add(since.min(Duration::from_secs(250_000_000_000)));
    humantime::format_rfc3339_millis(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

impl EventRecord {
    /// The headers and the body of the request by which Knative's KafkaSource would deliver the record: always in binary
    /// mode. A record that is no event becomes one. A batch, and an event that cannot be read, are delivered unchanged.
    pub(crate) fn delivery(&self, place: RecordPlace) -> (HeaderMap, Bytes) {
        let mut request = BinaryRequest::default();
        let content_type = self.header("content-type");
        let content_type = content_type.map(|found| &found[..]);
        let has_version = self.header("ce_specversion").is_some();
        match ContentMode::detect(content_type, has_version) {
            Ok(Some(ContentMode::Binary)) => {
                for (name, value) in self.headers.iter() {
                    let name = name.to_ascii_lowercase();
                    if let Some(name) = name.strip_prefix("ce_") {
                        request.set(&format!("ce-{name}"), &text_of(value));
                    }
                }
            }
            Ok(None) => self.become_event(place, &mut request),
            Ok(Some(ContentMode::Structured)) => {
                let value = self.value.as_deref().unwrap_or_default();
                if let Some(unpacked) = BinaryRequest::of_structured(value) {
                    return unpacked.placed(place).finish();
                }
            }
            Ok(Some(ContentMode::Batched)) | Err(_) => {}
        }
        if let Some(value) = content_type.and_then(|found| HeaderValue::from_bytes(found).ok()) {
            request.headers.insert(header::CONTENT_TYPE, value);
        }
        request.body = self.value.clone().unwrap_or_default();
        request.placed(place).finish()
    }

    /// Sets the attributes that KafkaSource gives a record that is no event.
    fn become_event(&self, place: RecordPlace, request: &mut BinaryRequest) {
        let RecordPlace {
            partition,
            offset,
            written,
        } = place;
        request.set("ce-specversion", "1.0");
        request.set("ce-id", &self.id);
        request.set("ce-source", &self.source);
        request.set("ce-type", RECORD);
        request.set("ce-subject", &format!("partition:{partition}#{offset}"));
        if let Some(written) = written {
            request.set("ce-time", &time(written));
        }
        if let Some(key) = &self.key {
            let key = String::from_utf8_lossy(key);
            request.set("ce-key", &key);
            request.set("ce-partitionkey", &key);
        }
        for (name, value) in self.headers.iter() {
            if name.eq_ignore_ascii_case("content-type") {
                continue;
            }
            let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            let value = String::from_utf8_lossy(value);
            request.set(
                &format!("ce-kafkaheader{}", name.to_ascii_lowercase()),
                &value,
            );
        }
    }
}

/// A request with an event in binary mode.
#[derive(Default)]
struct BinaryRequest {
    headers: HeaderMap,
    body: Bytes,
}

impl BinaryRequest {
    /// Sets a header. A name or a value that is invalid in HTTP is left out: no event needs it.
    fn set(&mut self, name: &str, value: &str) {
        let value = HeaderValue::try_from(reply::encoded(value));
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value) {
            self.headers.insert(name, value);
        }
    }

    /// An event that was in structured mode; `None` if it cannot be read. JSON data keep their bytes.
    fn of_structured(event: &[u8]) -> Option<Self> {
        let event = json::without_mark(event);
        let mut event: BTreeMap<String, &RawValue> = serde_json::from_slice(event).ok()?;
        event.retain(|_, value| value.get() != "null");
        let text = |value: &RawValue| serde_json::from_str::<String>(value.get()).ok();
        let mut request = Self::default();
        let content_type = event.remove("datacontenttype").and_then(text);
        request.body = match (event.remove("data"), event.remove("data_base64")) {
            (None, None) => Bytes::new(),
            (None, Some(encoded)) => STANDARD.decode(text(encoded)?).ok()?.into(),
            // With a type other than JSON, a string is the data itself.
            (Some(data), None) if !is_json(content_type.as_deref()) && text(data).is_some() => {
                text(data)?.into()
            }
            (Some(data), None) => data.get().to_owned().into(),
            (Some(_), Some(_)) => return None,
        };
        let content_type = content_type.as_deref().unwrap_or("application/json");
        let content_type = HeaderValue::try_from(content_type).ok()?;
        request.headers.insert(header::CONTENT_TYPE, content_type);
        for (name, value) in event {
            match serde_json::from_str(value.get()).ok()? {
                Value::String(value) => request.set(&format!("ce-{name}"), &value),
                Value::Number(_) | Value::Bool(_) => {
                    request.set(&format!("ce-{name}"), value.get());
                }
                Value::Null | Value::Array(_) | Value::Object(_) => {}
            }
        }
        Some(request)
    }

    /// Adds where the record is, as KafkaSource does for every event.
    fn placed(mut self, place: RecordPlace) -> Self {
        self.set("ce-knativekafkapartition", &place.partition.to_string());
        self.set("ce-knativekafkaoffset", &place.offset.to_string());
        self
    }

    fn finish(self) -> (HeaderMap, Bytes) {
        (self.headers, self.body)
    }
}

/// The headers and the body of the request by which Knative's KafkaSource would deliver a record.
pub fn record_as_request(record: &EventRecord, place: RecordPlace) -> (HeaderMap, Bytes) {
    record.delivery(place)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_record_is_delivered_as_knative_does() {
        let place = RecordPlace {
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
            ("ce-knativekafkapartition", "1"),
            ("ce-knativekafkaoffset", "7"),
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
        assert_eq!(headers["ce-knativekafkaoffset"], "7");
        let typed = [("content-type", "text/plain"), ("Trace-Id", "a")];
        let (headers, _) = message(&typed, "play").delivery(place);
        assert_eq!(headers["content-type"], "text/plain");
        assert!(headers.get("ce-kafkaheadercontenttype").is_none());
    }

    #[test]
    fn a_structured_event_is_delivered_in_binary_mode() {
        let place = RecordPlace {
            partition: 1,
            offset: 7,
            written: None,
        };
        let structured = [("content-type", "application/cloudevents+json")];
        let delivered = |data: &str| {
            let event =
                format!(r#"{{"specversion":"1.0","id":"ü","source":"/a","type":"t","n":3{data}}}"#);
            let mut record = message(&structured, "");
            record.value = Some(event.into());
            record.delivery(place)
        };
        for (data, content_type, body) in [
            (r#","data":"play""#, "application/json", r#""play""#),
            (
                r#","data":{"z":1234567890123456789012345, "a":1.50}"#,
                "application/json",
                r#"{"z":1234567890123456789012345, "a":1.50}"#,
            ),
            (
                r#","data":{"text":"play"},"data_base64":null,"datacontenttype":null"#,
                "application/json",
                r#"{"text":"play"}"#,
            ),
            (
                r#","data":"play","datacontenttype":"text/plain""#,
                "text/plain",
                "play",
            ),
            (
                r#","data_base64":"cGxheQ==","datacontenttype":"text/plain""#,
                "text/plain",
                "play",
            ),
            ("", "application/json", ""),
        ] {
            let (headers, found) = delivered(data);
            assert_eq!(
                (&found[..], &headers["content-type"]),
                (body.as_bytes(), &HeaderValue::from_static(content_type))
            );
            assert_eq!(
                (&headers["ce-id"], &headers["ce-n"]),
                (
                    &HeaderValue::from_static("%C3%BC"),
                    &HeaderValue::from_static("3")
                )
            );
            assert_eq!(headers["ce-knativekafkapartition"], "1");
        }
        let (headers, body) = message(&structured, "{").delivery(place);
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!(&body[..], b"{");
    }
}
