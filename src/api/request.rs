//! The requests of `/predict`: query string, form, our own JSON, and the JSON of Hugging Face's
//! text-embeddings-inference (TEI).
//!
//! Takes bytes, gives the texts and how the answer has to look. Messages never repeat the text.

use axum::http::{HeaderMap, HeaderValue, header};
use mime::Mime;
use serde_json::{Map, Value};

use crate::error::Refusal;
use crate::model::{Text, TooLong};
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
    Tei { list: List, raw_scores: bool },
}

#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) request: Request,
    pub(super) shape: Shape,
}

pub(super) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Refusal> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let found = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        return Err(Refusal::ContentEncoding { found });
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = content_type.map(String::from_utf8_lossy);
    let refused = |found: &str| Refusal::MediaType {
        found: found.to_owned(),
    };
    let Some(found) = content_type.as_deref() else {
        return decode_json(body);
    };
    let mime: Mime = found.parse().map_err(|_| refused(found))?;
    if mime.suffix() == Some(mime::JSON) || mime.essence_str() == mime::APPLICATION_JSON {
        decode_json(body)
    } else if mime.essence_str() == mime::APPLICATION_WWW_FORM_URLENCODED {
        let (query, too_long) = parameters_of(body, "the form", "query=music")?;
        let request = Request {
            texts: vec![Text::Single(query)],
            too_long,
        };
        Ok(Decoded {
            request,
            shape: Shape::Own(List::No),
        })
    } else {
        Err(refused(found))
    }
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
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        Refusal::Malformed(format!("the body is not JSON ({error}); {EXAMPLE}"))
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

fn decode_own(query: Value, truncate: Option<bool>) -> Result<Decoded, Refusal> {
    let wrong = || {
        Refusal::Invalid(format!(
            "\"query\" is not a text or a list of texts; {EXAMPLE}"
        ))
    };
    let (texts, list) = match query {
        Value::String(text) => (vec![Text::Single(text)], List::No),
        Value::Array(items) => {
            let text = |item| match item {
                Value::String(text) => Ok(Text::Single(text)),
                _ => Err(wrong()),
            };
            (
                items.into_iter().map(text).collect::<Result<_, _>>()?,
                List::Yes,
            )
        }
        _ => return Err(wrong()),
    };
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
    let (texts, list) = tei_inputs(map.remove("inputs").unwrap_or(Value::Null))?;
    let request = Request {
        texts,
        too_long: too_long(truncate),
    };
    Ok(Decoded {
        request,
        shape: Shape::Tei { list, raw_scores },
    })
}

/// TEI's `inputs`: a text, a pair (a list of two), or a list of lists of one or two. A flat list
/// of any other length, which TEI refuses, is a list of texts here.
fn tei_inputs(inputs: Value) -> Result<(Vec<Text>, List), Refusal> {
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
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<(usize, bool), String> {
        match decode_json(body.as_bytes()) {
            Ok(decoded) => {
                let list = match decoded.shape {
                    Shape::Own(list) | Shape::Tei { list, .. } => list,
                };
                Ok((decoded.request.texts.len(), list == List::Yes))
            }
            Err(refusal) => Err(format!("{} {refusal}", refusal.status())),
        }
    }

    #[test]
    fn our_own_shapes() {
        assert_eq!(texts(r#"{"query": "a"}"#), Ok((1, false)));
        assert_eq!(texts(r#"{"query": ["a"]}"#), Ok((1, true)));
        assert_eq!(texts(r#"["a", "b", "c"]"#), Ok((3, true)));
        for (body, status) in [
            ("", "400"),
            ("{", "400"),
            ("7", "422"),
            ("{}", "422"),
            (r#"{"query": 7}"#, "422"),
            (r#"{"query": ["a", 7]}"#, "422"),
            (r#"{"query": "a", "trunkate": false}"#, "422"),
            (r#"{"query": "a", "truncate": "no"}"#, "422"),
        ] {
            let error = texts(body).unwrap_err();
            assert!(error.starts_with(status), "{body}: {error}");
            assert!(
                error.contains("for example"),
                "{body}: {error} does not say what to do"
            );
        }
    }

    #[test]
    fn tei_shapes() {
        assert_eq!(texts(r#"{"inputs": "a"}"#), Ok((1, false)));
        assert_eq!(texts(r#"{"inputs": ["a", "b"]}"#), Ok((1, false)), "a pair");
        assert_eq!(texts(r#"{"inputs": ["a"]}"#), Ok((1, false)));
        assert_eq!(texts(r#"{"inputs": ["a", "b", "c"]}"#), Ok((3, true)));
        assert_eq!(texts(r#"{"inputs": [["a"], ["b", "c"]]}"#), Ok((2, true)));
        assert!(texts(r#"{"inputs": []}"#).unwrap_err().starts_with("400"));
        assert!(
            texts(r#"{"inputs": [["a", "b", "c"]]}"#)
                .unwrap_err()
                .starts_with("422")
        );
        assert!(texts(r#"{"inputs": 7}"#).unwrap_err().starts_with("422"));
        assert_eq!(
            texts(r#"{"inputs": "a", "truncation_direction": "right"}"#),
            Ok((1, false))
        );
        assert!(texts(r#"{"inputs": "a", "truncation_direction": "left"}"#).is_err());
    }

    #[test]
    fn a_refused_body_does_not_repeat_its_text() {
        for body in [
            r#"{"query": {"secret": 1}}"#,
            r#"{"query": "secret", "x": 1}"#,
            r#"{"query": "a", "truncate": "secret"}"#,
            r#"{"query": "a", "secret": 1}"#,
            r#"{"inputs": "a", "raw_scores": "secret"}"#,
            r#"{"query": "secret}"#,
            r#"["secret", 1]"#,
        ] {
            let error = texts(body).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn query_strings() {
        let decode = |query: &str| parameters_of(query.as_bytes(), "it", "this");
        assert_eq!(decode("query=play%20a+b%2Bc").unwrap().0, "play a b+c");
        assert_eq!(
            decode("x=1&query=a&truncate=false").unwrap(),
            ("a".into(), TooLong::Refuse)
        );
        assert_eq!(decode("query=").unwrap().0, "");
        for wrong in [
            "",
            "q=a",
            "query=a&query=b",
            "query=a&truncate=no",
            "query=%ff",
        ] {
            assert_eq!(decode(wrong).unwrap_err().status(), 400, "{wrong}");
        }
    }
}
