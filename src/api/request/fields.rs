//! Fields that several JSON bodies have.

use serde_json::{Map, Value};

use crate::error::Refusal;
use crate::model::TooLong;

/// A body that would be accepted, for error messages.
pub(super) const EXAMPLE: &str = "for example {\"query\": \"play some jazz\"}";

/// Takes a flag out of a JSON object.
pub(super) fn boolean(map: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, Refusal> {
    match map.remove(key) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(Refusal::Invalid(format!(
            "\"{key}\" is not true or false; {EXAMPLE}"
        ))),
    }
}

/// What `truncate` asks for; texts are cut by default.
pub(super) fn truncation(truncate: Option<bool>) -> TooLong {
    if truncate == Some(false) {
        TooLong::Refuse
    } else {
        TooLong::Truncate
    }
}
