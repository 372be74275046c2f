//! The delivery of a record as a request, as by Knative's KafkaSource.

use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::event::ContentMode;
use super::record::EventRecord;
use super::reply;

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
    /// The headers and the body of the request by which Knative's KafkaSource would deliver the record. An event is
    /// delivered unchanged; everything else becomes an event.
    pub(crate) fn delivery(&self, place: RecordPlace) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        let mut set = |name: &str, value: &str| {
            // A name or a value that is invalid in HTTP is left out: no event needs it.
            let value = HeaderValue::try_from(reply::encoded(value));
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value) {
                headers.insert(name, value);
            }
        };
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let content_type = self.header("content-type");
        let content_type = content_type.map(|found| &found[..]);
        let has_version = self.header("ce_specversion").is_some();
        match ContentMode::detect(content_type, has_version) {
            Ok(Some(ContentMode::Binary)) => {
                for (name, value) in self.headers.iter() {
                    let name = name.to_ascii_lowercase();
                    if let Some(name) = name.strip_prefix("ce_") {
                        set(&format!("ce-{name}"), &text(value));
                    }
                }
            }
            Ok(None) => {
                let RecordPlace {
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
            // The event is the body, or is in a format that cannot be read here.
            Ok(Some(ContentMode::Structured | ContentMode::Batched)) | Err(_) => {}
        }
        if let Some(value) = content_type.and_then(|found| HeaderValue::from_bytes(found).ok()) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        (headers, self.value.clone().unwrap_or_default())
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
}
