//! The label in a response, and the labels that are expected.

use std::sync::Arc;

use serde_json::Value;

/// The expected label of each text, if answers are checked.
#[derive(Debug, Clone, Default)]
pub struct Expected(pub(super) Option<Arc<[String]>>);

impl Expected {
    /// Accepts any answer.
    pub fn anything() -> Self {
        Self(None)
    }
}

/// Finds the label in a response body: the value at `pointer` (a JSON pointer, RFC 6901), else the first
/// member called "label" of a JSON document, else the whole plain text.
pub fn label_of(body: &[u8], pointer: Option<&str>) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let json: Option<Value> = serde_json::from_str(text).ok();
    let found = match (&json, pointer) {
        (Some(json), Some(pointer)) => json.pointer(pointer)?,
        (Some(json @ (Value::Array(_) | Value::Object(_))), None) => first_label(json)?,
        (None, Some(_)) => return None,
        _ => return (!text.is_empty()).then(|| text.to_owned()),
    };
    found.as_str().map(str::to_owned)
}

fn first_label(json: &Value) -> Option<&Value> {
    match json {
        Value::Object(members) => members
            .get("label")
            .filter(|label| label.is_string())
            .or_else(|| members.values().find_map(first_label)),
        Value::Array(items) => items.iter().find_map(first_label),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_in_the_answers_of_all_servers() {
        let label = |body: &str, pointer| label_of(body.as_bytes(), pointer);
        let music = Some("PlayMusic".to_owned());
        assert_eq!(label("PlayMusic\n", None), music);
        assert_eq!(
            label(r#"{"label": "PlayMusic", "score": 1.0}"#, None),
            music
        );
        assert_eq!(
            label(r#"[[{"score": 0.9, "label": "PlayMusic"}]]"#, None),
            music
        );
        let infinity = r#"{"object": "classify", "data": [[{"score": 1, "label": "PlayMusic"}]]}"#;
        assert_eq!(label(infinity, None), music);
        let triton = r#"{"outputs": [{"data": ["PlayMusic"]}]}"#;
        assert_eq!(label(triton, Some("/outputs/0/data/0")), music);
        for nothing in ["", "{}", "[1]", "{\"label\": 1}"] {
            assert_eq!(label(nothing, None), None, "{nothing}");
        }
        assert_eq!(label("PlayMusic", Some("/label")), None);
        assert_eq!(label_of(b"\xff", None), None);
    }
}
