//! Our own JSON: `{"query": …}`, or a bare list of texts.

use serde_json::{Map, Value};

use super::fields::{EXAMPLE, boolean, truncation};
use super::texts::{Arity, TextList};
use crate::error::Refusal;
use crate::serving::Request;

/// Decodes an object with `query` and perhaps `truncate`.
pub(super) fn decode_object(mut map: Map<String, Value>) -> Result<(Request, Arity), Refusal> {
    let truncate = boolean(&mut map, "truncate")?;
    let query = map
        .remove("query")
        .ok_or_else(|| Refusal::Invalid(format!("the JSON body has no \"query\"; {EXAMPLE}")))?;
    if !map.is_empty() {
        let what = "the JSON body has keys other than \"query\" and \"truncate\"";
        return Err(Refusal::Invalid(format!("{what}; {EXAMPLE}")));
    }
    decode_texts(query, truncate)
}

/// Decodes a text or a list of texts.
pub(super) fn decode_texts(
    query: Value,
    truncate: Option<bool>,
) -> Result<(Request, Arity), Refusal> {
    let TextList { texts, arity } = TextList::from_json(query).ok_or_else(|| {
        let what = "\"query\" is not a text, a pair {\"text\", \"text_pair\"} or a list of these";
        Refusal::Invalid(format!("{what}; {EXAMPLE}"))
    })?;
    let too_long = truncation(truncate);
    Ok((Request { texts, too_long }, arity))
}
