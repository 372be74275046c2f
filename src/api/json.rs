//! JSON that others have written, in memory that goes with its length.
//!
//! A value takes 32 bytes in memory and an entry of an object a hundred, however short it is in the text:
//! `[1,1,1` would take sixteen times its length. So there are only so many.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Values in one text: more than any list of texts that is accepted unless it is set so, and some
/// megabytes at most.
pub(crate) const VALUES_MAX: usize = 1 << 16;

/// The value that `text` is.
///
/// # Errors
/// Where it is no JSON, or more values than there may be; the message gives the place and never repeats
/// the text.
pub(super) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let left = Cell::new(VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Counted { left: &left }.deserialize(&mut deserializer)?;
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
        let left = self.left.get().checked_sub(1).ok_or_else(|| {
            let what = format!("more than {VALUES_MAX} values");
            D::Error::custom(what)
        })?;
        self.left.set(left);
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

    #[test]
    fn it_is_what_the_library_makes_of_it() {
        for text in [
            r#"{"a": [1, -2, 3.5, 1e400, true, null, "\u00e9\n"], "b": {"c": []}, "a": 2}"#,
            "[1, 2",
            "1 2",
            "123456789012345678901234567890",
            "",
        ] {
            let expected = serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
            let found = parse(text.as_bytes()).map_err(|error| error.to_string());
            assert_eq!(found, expected, "{text}");
        }
        assert!(parse(&b"[".repeat(1 << 20)).is_err());
    }

    #[test]
    fn there_are_not_more_values_than_there_may_be() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(parse(list(VALUES_MAX - 1).as_bytes()).is_ok());
        let error = parse(list(VALUES_MAX).as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("more than 65536 values"));
    }
}
