//! The requests of `/predict`: query string, form, our own JSON, and the JSON of Hugging Face's
//! text-embeddings-inference (TEI).
//!
//! Takes bytes, gives the texts and how the answer has to look. Messages never repeat the text.

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use mime::Mime;
use serde_json::{Map, Value};

use super::json;
use super::tei::TeiShape;
use crate::error::Refusal;
use crate::model::{Scoring, Text, TooLong};
use crate::serving::Request;

const EXAMPLE: &str = "for example {\"query\": \"play some jazz\"}";

/// Whether the client sent a list, and so gets one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    No,
    Yes,
}

/// How the answer has to look.
#[derive(Debug)]
pub(super) enum Shape {
    Own(List),
    Tei(TeiShape),
}

#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) request: Request,
    pub(super) shape: Shape,
}

/// Refuses a body that is compressed.
pub(super) fn identity_only(headers: &HeaderMap) -> Result<(), Refusal> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let found = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        return Err(Refusal::ContentEncoding { found });
    }
    Ok(())
}

pub(super) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Refusal> {
    identity_only(headers)?;
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = content_type.map(String::from_utf8_lossy);
    let refused = |found: &str| Refusal::MediaType {
        found: found.to_owned(),
    };
    let Some(found) = content_type.as_deref() else {
        return decode_json(body);
    };
    let mime: Mime = found.parse().map_err(|_| refused(found))?;
    if is_json(&mime) {
        decode_json(body)
    } else if mime.essence_str() == mime::APPLICATION_WWW_FORM_URLENCODED {
        let (query, too_long) = parameters_of(body, "the form", "query=music")?;
        Ok(Decoded {
            request: single(query, too_long),
            shape: Shape::Own(List::No),
        })
    } else {
        Err(refused(found))
    }
}

/// Whether a type is JSON or made of it (RFC 6839, section 3.1).
pub(super) fn is_json(mime: &Mime) -> bool {
    mime.suffix() == Some(mime::JSON) || mime.essence_str() == mime::APPLICATION_JSON
}

/// A request for one text.
pub(super) fn single(text: String, too_long: TooLong) -> Request {
    Request {
        texts: vec![Text::Single(text)],
        too_long,
    }
}

/// The text in an address, and what to do with it when it is too long; `None` where there is none.
pub(super) fn query_of(uri: &Uri) -> Result<Option<(String, TooLong)>, Refusal> {
    let encoded = uri.query().unwrap_or_default().as_bytes();
    let has = form_urlencoded::parse(encoded).any(|(name, _)| name == "query");
    if !has {
        return Ok(None);
    }
    parameters_of(encoded, "the query string", "?query=music").map(Some)
}

/// `query` and `truncate` of a query string or a form; other parameters are let pass, since
/// gateways and browsers add their own.
pub(super) fn parameters_of(
    encoded: &[u8],
    place: &str,
    example: &str,
) -> Result<(String, TooLong), Refusal> {
    let malformed = |what: String| Refusal::Malformed(format!("{place} {what}"));
    if percent_encoding::percent_decode(encoded)
        .decode_utf8()
        .is_err()
    {
        return Err(malformed("is not UTF-8 once percent-decoded".into()));
    }
    let (mut query, mut too_long) = (None, TooLong::Truncate);
    for (name, value) in form_urlencoded::parse(encoded) {
        match &*name {
            "query" if query.is_some() => {
                return Err(malformed(
                    "has the parameter \"query\" twice; send a list by POST".into(),
                ));
            }
            "query" => query = Some(value.into_owned()),
            "truncate" => {
                too_long = match &*value {
                    "true" => TooLong::Truncate,
                    "false" => TooLong::Refuse,
                    _ => {
                        return Err(malformed(
                            "has a \"truncate\" that is not true or false".into(),
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    match query {
        Some(query) => Ok((query, too_long)),
        None => Err(malformed(format!(
            "has no parameter \"query\"; {example} would do"
        ))),
    }
}

fn decode_json(body: &[u8]) -> Result<Decoded, Refusal> {
    // The parser's message gives the place; it never repeats the text.
    let value = json::parse(body).map_err(|failure| {
        failure.refusal(|error| {
            Refusal::Malformed(format!("the body is not JSON ({error}); {EXAMPLE}"))
        })
    })?;
    match value {
        Value::Object(map) if map.contains_key("inputs") => decode_tei(map),
        Value::Object(mut map) => {
            let truncate = boolean(&mut map, "truncate")?;
            let query = map.remove("query").ok_or_else(|| {
                Refusal::Invalid(format!("the JSON body has no \"query\"; {EXAMPLE}"))
            })?;
            if !map.is_empty() {
                let what = "the JSON body has keys other than \"query\" and \"truncate\"";
                return Err(Refusal::Invalid(format!("{what}; {EXAMPLE}")));
            }
            decode_own(query, truncate)
        }
        Value::Array(_) => decode_own(value, None),
        _ => Err(Refusal::Invalid(format!(
            "the JSON body is not an object; {EXAMPLE}"
        ))),
    }
}

/// Takes a flag out of a JSON object.
fn boolean(map: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, Refusal> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(Refusal::Invalid(format!(
            "\"{key}\" is not true or false; {EXAMPLE}"
        ))),
    }
}

/// A text, or a list of texts; `None` for anything else.
pub(super) fn texts_of(value: Value) -> Option<(Vec<Text>, List)> {
    let text = |item| match item {
        Value::String(text) => Some(Text::Single(text)),
        _ => None,
    };
    match value {
        Value::Array(items) => {
            let texts: Option<_> = items.into_iter().map(text).collect();
            Some((texts?, List::Yes))
        }
        value => Some((vec![text(value)?], List::No)),
    }
}

fn decode_own(query: Value, truncate: Option<bool>) -> Result<Decoded, Refusal> {
    let (texts, list) = texts_of(query).ok_or_else(|| {
        let what = "\"query\" is not a text or a list of texts";
        Refusal::Invalid(format!("{what}; {EXAMPLE}"))
    })?;
    Ok(Decoded {
        request: Request {
            texts,
            too_long: too_long(truncate),
        },
        shape: Shape::Own(list),
    })
}

/// TEI's shape. Keys that are not known pass, as they do there.
fn decode_tei(mut map: Map<String, Value>) -> Result<Decoded, Refusal> {
    let direction = map.remove("truncation_direction").unwrap_or(Value::Null);
    let right = direction
        .as_str()
        .is_some_and(|d| d.eq_ignore_ascii_case("right"));
    if !direction.is_null() && !right {
        let what = "\"truncation_direction\" can only be \"right\": the beginning is kept";
        return Err(Refusal::Invalid(what.to_owned()));
    }
    let truncate = boolean(&mut map, "truncate")?;
    let raw_scores = boolean(&mut map, "raw_scores")?.unwrap_or(false);
    let inputs = map.remove("inputs").unwrap_or(Value::Null);
    let (texts, shape) = match map.remove("parameters") {
        Some(Value::Object(parameters)) => decode_pipeline(inputs, parameters)?,
        None | Some(Value::Null) => {
            let (texts, list) = inputs_of(inputs)?;
            let shape = TeiShape {
                list,
                scoring: None,
                top: None,
            };
            (texts, shape)
        }
        Some(_) => {
            let what = "\"parameters\" is not an object";
            return Err(Refusal::Invalid(what.to_owned()));
        }
    };
    let request = Request {
        texts,
        too_long: too_long(truncate),
    };
    let scoring = shape.scoring.or(raw_scores.then_some(Scoring::Identity));
    Ok(Decoded {
        request,
        shape: Shape::Tei(TeiShape { scoring, ..shape }),
    })
}

/// What clients of the hub send (`huggingface_hub`): as the pipelines of transformers take it, where a list
/// is a list of texts and the answer always a list of lists. Parameters that are not known pass, as they do
/// there.
fn decode_pipeline(
    inputs: Value,
    mut parameters: Map<String, Value>,
) -> Result<(Vec<Text>, TeiShape), Refusal> {
    let invalid = |what: &str| Refusal::Invalid(what.to_owned());
    let (texts, _) =
        texts_of(inputs).ok_or_else(|| invalid("\"inputs\" is not a text or a list of texts"))?;
    let scoring = match parameters.remove("function_to_apply") {
        None | Some(Value::Null) => None,
        Some(found) => Some(match found.as_str() {
            Some("softmax") => Scoring::Softmax,
            Some("sigmoid") => Scoring::Sigmoid,
            Some("none") => Scoring::Identity,
            _ => {
                let what = "\"function_to_apply\" is not \"softmax\", \"sigmoid\" or \"none\"";
                return Err(invalid(what));
            }
        }),
    };
    let top = match parameters.remove("top_k") {
        None | Some(Value::Null) => None,
        Some(found) => match found.as_u64().map(usize::try_from) {
            Some(Ok(top)) if top > 0 => Some(top),
            _ => return Err(invalid("\"top_k\" is not a whole number above 0")),
        },
    };
    let shape = TeiShape {
        list: List::Yes,
        scoring,
        top,
    };
    Ok((texts, shape))
}

/// The texts of a `POST /tokenize`, and whether special tokens are wanted.
pub(super) fn tokenize(headers: &HeaderMap, body: &[u8]) -> Result<(Vec<String>, bool), Refusal> {
    identity_only(headers)?;
    if let Some(found) = headers.get(header::CONTENT_TYPE) {
        let found = String::from_utf8_lossy(found.as_bytes());
        if !found.parse().is_ok_and(|mime| is_json(&mime)) {
            let found = found.into_owned();
            return Err(Refusal::MediaType { found });
        }
    }
    let example = "for example {\"inputs\": \"play some jazz\"}";
    let value = json::parse(body).map_err(|failure| {
        failure.refusal(|error| {
            Refusal::Malformed(format!("the body is not JSON ({error}); {example}"))
        })
    })?;
    let Value::Object(mut map) = value else {
        let what = format!("the JSON body is not an object; {example}");
        return Err(Refusal::Invalid(what));
    };
    let with_special = boolean(&mut map, "add_special_tokens")?.unwrap_or(true);
    let (texts, _) = map.remove("inputs").and_then(texts_of).ok_or_else(|| {
        let what = "\"inputs\" is not a text or a list of texts";
        Refusal::Invalid(format!("{what}; {example}"))
    })?;
    if texts.is_empty() {
        return Err(Refusal::Empty);
    }
    let text = |text| match text {
        Text::Single(text) | Text::Pair(text, _) => text,
    };
    Ok((texts.into_iter().map(text).collect(), with_special))
}

/// TEI's `inputs`: a text, a pair (a list of two), or a list of lists of one or two. A flat list
/// of any other length, which TEI refuses, is a list of texts here.
pub(super) fn inputs_of(inputs: Value) -> Result<(Vec<Text>, List), Refusal> {
    let wrong = || {
        let what =
            "\"inputs\" is not a text, a pair [\"a\", \"b\"] or a list [[\"a\"], [\"b\", \"c\"]]";
        Refusal::Invalid(what.to_owned())
    };
    let string = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong()),
    };
    let single_or_pair = |item: Value| match item {
        Value::String(text) => Ok(Text::Single(text)),
        Value::Array(mut parts) if parts.len() == 2 => {
            let second = parts.pop().map_or_else(|| Err(wrong()), string)?;
            Ok(Text::Pair(
                parts.pop().map_or_else(|| Err(wrong()), string)?,
                second,
            ))
        }
        Value::Array(mut parts) if parts.len() == 1 => Ok(Text::Single(
            parts.pop().map_or_else(|| Err(wrong()), string)?,
        )),
        _ => Err(wrong()),
    };
    match inputs {
        Value::String(text) => Ok((vec![Text::Single(text)], List::No)),
        Value::Array(items) if items.is_empty() => Err(Refusal::Empty),
        Value::Array(items) if items.len() <= 2 && items.iter().all(Value::is_string) => {
            Ok((vec![single_or_pair(Value::Array(items))?], List::No))
        }
        Value::Array(items) => Ok((
            items
                .into_iter()
                .map(single_or_pair)
                .collect::<Result<_, _>>()?,
            List::Yes,
        )),
        _ => Err(wrong()),
    }
}

fn too_long(truncate: Option<bool>) -> TooLong {
    if truncate == Some(false) {
        TooLong::Refuse
    } else {
        TooLong::Truncate
    }
}

#[cfg(test)]
mod tests;
