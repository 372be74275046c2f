//! JSON as Python's `json` module writes and reads it.
//!
//! transformers writes its files with it. Beyond JSON it knows `NaN`, `Infinity` and `-Infinity`. They stand in keys that
//! nothing needs, such as a dropout rate, and must not keep a model from being loaded.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::CheckpointError;
use super::files::Files;

/// Words of Python that are not JSON, and what they are read as.
const WORDS: [(&str, &str); 3] = [
    ("NaN", "null"),
    ("-Infinity", "-1.7976931348623157e308"),
    ("Infinity", "1.7976931348623157e308"),
];

/// Reads the file `name`: a JSON object. `None` if there is no such file.
///
/// # Errors
/// When the file cannot be read or is not a JSON object.
pub(super) fn read(
    files: &Files,
    name: &str,
) -> Result<Option<Map<String, Value>>, CheckpointError> {
    let Some(content) = files.read(name)? else {
        return Ok(None);
    };
    let invalid = |expected: &str, found: String| {
        CheckpointError::invalid(files.path(name), "(file)", expected, found)
    };
    match parse(&content).map_err(|error| invalid("JSON", error.to_string()))? {
        Value::Object(map) => Ok(Some(map)),
        other => Err(invalid("a JSON object", kind(&other).to_owned())),
    }
}

/// The value of a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    /// The keys of an object, in the order of the file.
    pub(super) keys: Vec<String>,
}

/// Like [`read`], in the order of the file.
///
/// # Errors
/// As [`read`].
pub(super) fn entries(
    files: &Files,
    name: &str,
) -> Result<Option<Vec<(String, Entry)>>, CheckpointError> {
    // Says what is wrong.
    let Some(_) = read(files, name)? else {
        return Ok(None);
    };
    let content = files.read(name)?.unwrap_or_default();
    let content = replace(&content).map_or(content, Into::into);
    let entries = || -> serde_json::Result<Vec<(String, Entry)>> {
        let Entries(raw) = serde_json::from_slice::<Entries<Box<RawValue>>>(&content)?;
        let entry = |(key, raw): (String, Box<RawValue>)| {
            let value: Value = serde_json::from_str(raw.get())?;
            let keys = match value {
                Value::Object(_) => serde_json::from_str::<Entries<IgnoredAny>>(raw.get())?.0,
                _ => Vec::new(),
            };
            let keys = keys.into_iter().map(|(key, _)| key).collect();
            Ok((key, Entry { value, keys }))
        };
        raw.into_iter().map(entry).collect()
    };
    let invalid = |error| CheckpointError::invalid(files.path(name), "(file)", "JSON", error);
    entries().map(Some).map_err(invalid)
}

/// An object in the order of the file. If a key occurs twice, the last value stands in the place of the first, as in
/// Python.
struct Entries<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
    type Value = Entries<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
        let (mut entries, mut places) = (Vec::new(), HashMap::new());
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            match places.get(&key) {
                Some(place) => {
                    let (_, known): &mut (String, T) = &mut entries[*place];
                    *known = value;
                }
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Entries(entries))
    }
}

/// Parses a document.
///
/// # Errors
/// When it is neither JSON nor what Python writes for it.
pub(super) fn parse(content: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(content).or_else(|error| {
        let replaced = replace(content).ok_or(error)?;
        serde_json::from_slice(&replaced)
    })
}

/// `content` with Python's words replaced. `None` if there are none.
fn replace(content: &[u8]) -> Option<Vec<u8>> {
    let mut replaced = Vec::with_capacity(content.len());
    let (mut rest, mut in_string, mut any) = (content, false, false);
    while let [first, after @ ..] = rest {
        let word = |(word, _): &&(&str, &str)| rest.starts_with(word.as_bytes());
        if !in_string && let Some((word, value)) = WORDS.iter().find(word) {
            replaced.extend_from_slice(value.as_bytes());
            rest = &rest[word.len()..];
            any = true;
            continue;
        }
        replaced.push(*first);
        rest = after;
        match *first {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                if let [escaped, after @ ..] = rest {
                    replaced.push(*escaped);
                    rest = after;
                }
            }
            _ => {}
        }
    }
    any.then_some(replaced)
}

/// The JSON type of a value, for messages that must not contain a whole document.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_python_are_read_outside_of_strings() {
        let text = br#"{"a": NaN, "b": [Infinity, -Infinity], "NaN \" Infinity": "NaN"}"#;
        let value = parse(text).unwrap();
        assert_eq!(value["a"], Value::Null);
        assert_eq!(value["b"], serde_json::json!([f64::MAX, f64::MIN]));
        assert_eq!(value["NaN \" Infinity"], "NaN");
        assert!(parse(b"{\"a\": Nan}").is_err());
        assert!(parse(b"{\"a\": NaN").is_err());
        assert_eq!(
            parse(b"[1000000000000000019884624838656]").unwrap()[0].as_f64(),
            Some(1e30),
            "the length that transformers writes for no limit"
        );
    }
}
