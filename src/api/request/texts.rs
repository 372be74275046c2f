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

    /// The texts of a JSON string or of an array of strings; `None` for anything else.
    pub(crate) fn from_json(value: Value) -> Option<Self> {
        let text = |item| match item {
            Value::String(text) => Some(Text::Single(text)),
            _ => None,
        };
        match value {
            Value::Array(items) => {
                let texts: Option<_> = items.into_iter().map(text).collect();
                Some(Self {
                    texts: texts?,
                    arity: Arity::List,
                })
            }
            value => Some(Self::single(text(value)?)),
        }
    }
}
