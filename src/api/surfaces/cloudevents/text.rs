//! The texts in an event's data. Error messages never repeat them.

use axum::body::Bytes;
use mime::Mime;
use serde_json::Value;

use super::event::EventData;
use crate::api::json;
use crate::api::request::{TextList, text_or_pairs, with_second};
use crate::error::Refusal;
use crate::model::Text;

/// The position of the text in an event's data: a JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPointer(String);

impl std::str::FromStr for TextPointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The only other error is a stray tilde, which then finds nothing.
        if text.is_empty() || text.starts_with('/') {
            Ok(Self(text.to_owned()))
        } else {
            Err("expected a JSON pointer such as /message/text".to_owned())
        }
    }
}

/// The keys under which an object may have its text, in order of precedence.
const KEYS: [&str; 2] = ["query", "text"];

/// The texts in the data: a single one, or a list that is not empty.
pub(super) fn texts(data: EventData, pointer: Option<&TextPointer>) -> Result<TextList, Refusal> {
    let list = match data {
        EventData::Json(value) => of_json(value, pointer),
        EventData::Bytes(content_type, bytes) => of_bytes(content_type.as_deref(), &bytes, pointer),
    }?;
    if list.texts.is_empty() {
        return Err(Refusal::Empty);
    }
    Ok(list)
}

fn of_bytes(
    content_type: Option<&str>,
    bytes: &Bytes,
    pointer: Option<&TextPointer>,
) -> Result<TextList, Refusal> {
    if bytes.is_empty() {
        // A record without a value: a tombstone of Kafka.
        return Err(Refusal::NoData);
    }
    let refused = |found: &str| Refusal::EventData {
        found: found.to_owned(),
    };
    let mime: Option<Mime> = content_type
        .map(|found| found.parse().map_err(|_| refused(found)))
        .transpose()?;
    let kind = match &mime {
        // Data of unknown type is inspected.
        None => None,
        Some(mime) if *mime == mime::APPLICATION_OCTET_STREAM => None,
        Some(mime) if mime.subtype() == mime::JSON || mime.suffix() == Some(mime::JSON) => {
            Some(DataFormat::Json)
        }
        Some(mime) if mime.type_() == mime::TEXT => Some(DataFormat::Text),
        Some(mime) => return Err(refused(mime.essence_str())),
    };
    let malformed = |error: serde_json::Error| {
        Refusal::Malformed(format!("the event's data is not JSON ({error})"))
    };
    let not_text = || Refusal::Malformed("the event's data is not UTF-8".to_owned());
    match kind {
        Some(DataFormat::Json) => {
            let value = json::parse(bytes).map_err(|error| error.refusal(malformed))?;
            of_json(value, pointer)
        }
        Some(DataFormat::Text) if pointer.is_none() => {
            let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
            Ok(TextList::single(Text::Single(text.to_owned())))
        }
        Some(DataFormat::Text) | None => {
            let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
            match json::parse(text.as_bytes()) {
                // A number or a single word is more likely a text than JSON.
                Ok(value @ (Value::String(_) | Value::Object(_) | Value::Array(_))) => {
                    of_json(value, pointer)
                }
                Err(error @ json::JsonError::TooMany) => Err(error.refusal(malformed)),
                _ if pointer.is_some() => Err(no_text_at_pointer()),
                _ => Ok(TextList::single(Text::Single(text.to_owned()))),
            }
        }
    }
}

/// The format of data whose type is known.
enum DataFormat {
    Json,
    Text,
}

fn no_text_at_pointer() -> Refusal {
    let what = "the event's data has no text at --event-text-pointer";
    Refusal::Invalid(what.to_owned())
}

fn of_json(value: Value, pointer: Option<&TextPointer>) -> Result<TextList, Refusal> {
    if let Some(TextPointer(pointer)) = pointer {
        let found = value.pointer(pointer).ok_or_else(no_text_at_pointer)?;
        return TextList::from_json(found.clone()).ok_or_else(no_text_at_pointer);
    }
    let none = || {
        let what = "the event's data has no text: expected a string, a list of strings, or an \
                    object with \"query\", \"text\" or \"inputs\", which a string \"text_pair\" makes \
                    a pair if it is a single string (or set --event-text-pointer)";
        Refusal::Invalid(what.to_owned())
    };
    match value {
        Value::Object(mut map) => {
            if let Some(inputs) = map.remove("inputs") {
                return text_or_pairs(with_second(inputs, &mut map));
            }
            let found = KEYS.iter().find_map(|key| map.remove(*key));
            let found = found.map(|texts| with_second(texts, &mut map));
            found.and_then(TextList::from_json).ok_or_else(none)
        }
        value => TextList::from_json(value).ok_or_else(none),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::Arity;

    fn bytes(content_type: Option<&str>, data: &'static [u8]) -> EventData {
        EventData::Bytes(content_type.map(str::to_owned), Bytes::from_static(data))
    }

    fn found(data: EventData, pointer: Option<&str>) -> Result<(Vec<String>, bool), u16> {
        let pointer = pointer.map(|text| text.parse().unwrap());
        let TextList { texts, arity } =
            texts(data, pointer.as_ref()).map_err(|refusal| refusal.status())?;
        let text = |text: Text| match text {
            Text::Single(text) => text,
            Text::Pair(first, second) => format!("{first}|{second}"),
        };
        Ok((texts.into_iter().map(text).collect(), arity == Arity::List))
    }

    fn one(text: &str) -> Result<(Vec<String>, bool), u16> {
        Ok((vec![text.to_owned()], false))
    }

    #[test]
    fn data_without_a_type_is_inspected() {
        for (data, text) in [
            (&b"play some jazz"[..], "play some jazz"),
            (b"\"play\"", "play"),
            (br#"{"query":"play","user":7}"#, "play"),
            (br#"{"text":"play"}"#, "play"),
            (br#"{"query":null,"text":"play"}"#, "play"),
            (b"\xef\xbb\xbf{\"text\":\"play\"}", "play"),
            (br#"{"inputs":"play"}"#, "play"),
            (br#"{"inputs":["a","b"]}"#, "a|b"),
            (br#"{"text":"a","text_pair":"b"}"#, "a|b"),
            (br#"{"inputs":"a","text_pair":"b"}"#, "a|b"),
            (br#"{"query":{"text":"a","text_pair":"b"}}"#, "a|b"),
            (b"42", "42"),
            (b"true", "true"),
            (b"{not json", "{not json"),
        ] {
            assert_eq!(found(bytes(None, data), None), one(text));
            let unknown = Some("application/octet-stream");
            assert_eq!(found(bytes(unknown, data), None), one(text));
        }
        let list = Ok((vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!(found(bytes(None, br#"["a","b"]"#), None), list);
        assert_eq!(found(bytes(None, b"{}"), None), Err(422));
        for not_a_pair in [
            &br#"{"text":"a","text_pair":7}"#[..],
            br#"{"query":["a"],"text_pair":"b"}"#,
            br#"{"inputs":["a","b"],"text_pair":"c"}"#,
        ] {
            assert_eq!(found(bytes(None, not_a_pair), None), Err(422));
        }
        assert_eq!(found(bytes(None, b"\xff\x00"), None), Err(400));
        assert_eq!(found(bytes(None, b""), None), Err(400));
    }

    #[test]
    fn a_declared_type_is_believed() {
        let json = Some("application/json");
        assert_eq!(found(bytes(json, b"42"), None), Err(422));
        assert_eq!(found(bytes(json, b"play"), None), Err(400));
        let text = Some("text/plain; charset=utf-8");
        assert_eq!(found(bytes(text, b"\"play\""), None), one("\"play\""));
        assert_eq!(found(bytes(Some("image/png"), b"x"), None), Err(415));
        assert_eq!(found(bytes(Some("nonsense"), b"x"), None), Err(415));
    }

    #[test]
    fn a_pointer_gives_the_position_of_the_text() {
        let data = || bytes(None, br#"{"query":"no","m":{"a/b":["yes"],"t":"yes"}}"#);
        assert_eq!(found(data(), Some("/m/t")), one("yes"));
        let list = Ok((vec!["yes".to_owned()], true));
        assert_eq!(found(data(), Some("/m/a~1b")), list);
        assert_eq!(found(data(), Some("/m")), Err(422));
        assert_eq!(found(data(), Some("/x")), Err(422));
        assert_eq!(found(bytes(None, b"\"yes\""), Some("")), one("yes"));
        assert_eq!(found(bytes(None, b"play"), Some("/m")), Err(422));
        assert!("m/t".parse::<TextPointer>().is_err());
    }
}
