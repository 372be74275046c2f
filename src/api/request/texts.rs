//! The texts of a request.

use serde_json::{Map, Value, json};

use crate::model::Text;

/// Whether a client sent a single text or a list; its answer has the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    Single,
    List,
}

/// The texts of a request, in order.
#[derive(Debug)]
pub(crate) struct TextList {
    pub(crate) texts: Vec<Text>,
    pub(crate) arity: Arity,
}

impl TextList {
    /// A single text.
    pub(crate) fn single(text: Text) -> Self {
        Self {
            texts: vec![text],
            arity: Arity::Single,
        }
    }

    /// The texts of a JSON string, a pair, or an array of these; `None` for anything else.
    pub(crate) fn from_json(value: Value) -> Option<Self> {
        match value {
            Value::Array(items) => {
                let texts: Option<_> = items.into_iter().map(text_or_pair).collect();
                Some(Self {
                    texts: texts?,
                    arity: Arity::List,
                })
            }
            value => Some(Self::single(text_or_pair(value)?)),
        }
    }
}

/// The key of the second text of a pair.
const SECOND: &str = "text_pair";

/// What `map` has as texts, as a pair if it has the second text of one beside them.
pub(crate) fn with_second(texts: Value, map: &mut Map<String, Value>) -> Value {
    match map.remove(SECOND) {
        None => texts,
        Some(second) => json!({"text": texts, SECOND: second}),
    }
}

/// A text, or a pair as the pipelines of transformers take it: `{"text": …, "text_pair": …}`.
pub(super) fn text_or_pair(value: Value) -> Option<Text> {
    match value {
        Value::String(text) => Some(Text::Single(text)),
        Value::Object(mut map) => {
            let text = match (map.remove("text")?, map.remove(SECOND)) {
                (Value::String(text), None) => Text::Single(text),
                (Value::String(first), Some(Value::String(second))) => Text::Pair(first, second),
                _ => return None,
            };
            map.is_empty().then_some(text)
        }
        _ => None,
    }
}
