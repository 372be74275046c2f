//! The texts of a request.

use serde_json::Value;

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

    /// A single text with the second one of a pair; `None` if there are several, it is a pair, or that is not a text.
    pub(crate) fn with_second(mut self, second: Value) -> Option<Self> {
        match (self.arity, self.texts.pop(), second) {
            (Arity::Single, Some(Text::Single(first)), Value::String(second)) => {
                Some(Self::single(Text::Pair(first, second)))
            }
            _ => None,
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
pub(crate) const SECOND: &str = "text_pair";

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
