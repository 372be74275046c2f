//! JSON that others have written, in memory that goes with its length.
//!
//! A value takes 32 bytes in memory and an entry of an object a hundred, however short it is in the text:
//! `[1,1,1` would take sixteen times its length. So there are only so many.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Refusal;

/// Values in one text: more than any list of texts that is accepted unless it is set so, and some
/// megabytes at most.
pub(crate) const VALUES_MAX: usize = 1 << 19;

/// Why a text is not taken as JSON.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is none; the message gives the place and never repeats the text.
    Syntax(serde_json::Error),
    /// It has more values than there may be.
    TooMany,
}

impl Failure {
    /// The refusal of a body; `malformed` says it of one that is no JSON.
    pub(super) fn refusal(self, malformed: impl FnOnce(serde_json::Error) -> Refusal) -> Refusal {
        match self {
            Self::Syntax(error) => malformed(error),
            Self::TooMany => Refusal::Invalid(format!(
                "the JSON has more than {VALUES_MAX} values; send fewer texts at once"
            )),
        }
    }
}

/// The value that `text` is.
pub(super) fn parse(text: &[u8]) -> Result<Value, Failure> {
    let left = Cell::new(VALUES_MAX + 1);
    let counted = Counted { left: &left };
    // What is UTF-8 as a whole need not be looked at again string by string, and the look as a whole takes
    // a tenth of the time.
    let value = match simdutf8::basic::from_utf8(text) {
        Ok(text) => whole(serde_json::Deserializer::from_str(text), counted),
        Err(_) => whole(serde_json::Deserializer::from_slice(text), counted),
    };
    value.map_err(|error| match left.get() {
        0 => Failure::TooMany,
        _ => Failure::Syntax(error),
    })
}

/// The one value that there is to read.
fn whole<'de, R: serde_json::de::Read<'de>>(
    mut deserializer: serde_json::Deserializer<R>,
    counted: Counted<'_>,
) -> serde_json::Result<Value> {
    let value = counted.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// A value that counts.
#[derive(Clone, Copy)]
struct Counted<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
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
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(failure: Failure) -> String {
        let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
        failure.refusal(malformed).to_string()
    }

    #[test]
    fn it_is_what_the_library_makes_of_it() {
        for text in [
            r#"{"a": [1, -2, 3.5, 1e400, true, null, "\u00e9\n"], "b": {"c": []}, "a": 2}"#,
            r#"{"a": [1, -2, 3.5, 1e300, true, null, "\u00e9\n"], "b": {"c": []}, "a": 2}"#,
            "[1, 2",
            "1 2",
            "123456789012345678901234567890",
            "",
        ] {
            let malformed = |error| Failure::Syntax(error);
            let expected = serde_json::from_str::<Value>(text).map_err(malformed);
            let found = parse(text.as_bytes()).map_err(said);
            assert_eq!(found, expected.map_err(said), "{text}");
        }
        assert!(matches!(
            parse(&b"[".repeat(1 << 20)),
            Err(Failure::Syntax(_))
        ));
    }

    #[test]
    fn there_are_not_more_values_than_there_may_be() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(parse(list(VALUES_MAX - 1).as_bytes()).is_ok());
        let failure = parse(list(VALUES_MAX).as_bytes()).unwrap_err();
        assert!(said(failure).contains("more than 524288 values"));
    }
}
