//! A JSON parser for clients' bodies, bounded in memory by the number of values.
//!
//! It is as lenient as clients need: a byte-order mark may come first (RFC 8259, section 8.1), and a member that is `null`
//! counts as absent, since many serializers write every optional member.
//!
//! A value takes 32 bytes in memory and an entry of an object about a hundred, however short its text is:
//! `[1,1,1` would take sixteen times its length. So the number of values is limited.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Refusal;

/// The most values in one text. It exceeds every list of texts that the default limits accept, and takes some
/// megabytes at most.
pub(crate) const VALUES_MAX: usize = 1 << 19;

/// The reason why a text is not accepted as JSON.
#[derive(Debug)]
pub(super) enum JsonError {
    /// It is not JSON. The message gives the position and never repeats the text.
    Syntax(serde_json::Error),
    /// It has more than [`VALUES_MAX`] values.
    TooMany,
}

impl JsonError {
    /// The refusal of the body; `malformed` words that of a syntax error.
    pub(super) fn refusal(self, malformed: impl FnOnce(serde_json::Error) -> Refusal) -> Refusal {
        match self {
            Self::Syntax(error) => malformed(error),
            Self::TooMany => Refusal::Invalid(format!(
                "the JSON has more than {VALUES_MAX} values; send fewer texts at once"
            )),
        }
    }
}

/// UTF-8's byte-order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text without a byte-order mark.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Parses `text`. Members that are `null` are left out.
pub(super) fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let text = without_mark(text);
    let left = Cell::new(VALUES_MAX + 1);
    let counted = CountedValue { left: &left };
    // A text that is UTF-8 as a whole needs no check of each string, and checking the whole takes a tenth of the
    // time.
    let value = match simdutf8::basic::from_utf8(text) {
        Ok(text) => whole(serde_json::Deserializer::from_str(text), counted),
        Err(_) => whole(serde_json::Deserializer::from_slice(text), counted),
    };
    value.map_err(|error| match left.get() {
        0 => JsonError::TooMany,
        _ => JsonError::Syntax(error),
    })
}

/// Reads a value and checks that nothing follows it.
fn whole<'de, R: serde_json::de::Read<'de>>(
    mut deserializer: serde_json::Deserializer<R>,
    counted: CountedValue<'_>,
) -> serde_json::Result<Value> {
    let value = counted.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Deserializes a value and counts it.
#[derive(Clone, Copy)]
struct CountedValue<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for CountedValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CountedValue<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            match entries.next_value_seed(self)? {
                // As with any key that is there twice, the last one counts.
                Value::Null => map.remove(&key),
                value => map.insert(key, value),
            };
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: JsonError) -> String {
        let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
        error.refusal(malformed).to_string()
    }

    #[test]
    fn values_are_those_of_serde_json() {
        for text in [
            r#"{"a": [1, -2, 3.5, 1e400, true, null, "\u00e9\n"], "b": {"c": []}, "a": 2}"#,
            r#"{"a": [1, -2, 3.5, 1e300, true, null, "\u00e9\n"], "b": {"c": []}, "a": 2}"#,
            "null",
            "[1, 2",
            "1 2",
            "123456789012345678901234567890",
            "",
        ] {
            let malformed = |error| JsonError::Syntax(error);
            let expected = serde_json::from_str::<Value>(text).map_err(malformed);
            let found = parse(text.as_bytes()).map_err(message);
            assert_eq!(found, expected.map_err(message), "{text}");
        }
        assert!(matches!(
            parse(&b"[".repeat(1 << 20)),
            Err(JsonError::Syntax(_))
        ));
    }

    #[test]
    fn members_that_are_null_are_absent() {
        let text = r#"{"a": null, "b": {"c": null, "d": [null]}, "e": 1, "e": null}"#;
        let expected = serde_json::json!({"b": {"d": [null]}});
        assert_eq!(parse(text.as_bytes()).map_err(message), Ok(expected));
    }

    #[test]
    fn a_byte_order_mark_may_come_first() {
        let marked = |text: &str| parse(format!("\u{feff}{text}").as_bytes());
        assert_eq!(marked("[1]").unwrap(), serde_json::json!([1]));
        for wrong in ["", "\u{feff}[1]", "[1]\u{feff}"] {
            assert!(
                matches!(marked(wrong), Err(JsonError::Syntax(_))),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_number_of_values_is_limited() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(parse(list(VALUES_MAX - 1).as_bytes()).is_ok());
        let error = parse(list(VALUES_MAX).as_bytes()).unwrap_err();
        assert!(message(error).contains("more than 524288 values"));
    }
}
