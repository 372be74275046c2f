//! JSON as Python's `json` module writes and reads it.
//!
//! transformers writes its files with it. Beyond JSON it knows `NaN`, `Infinity` and `-Infinity`. They stand in keys that
//! nothing needs, such as a dropout rate, and must not keep a model from being loaded.

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
