//! The body of a `POST /predict` that holds no event: its content type and its keys tell the format.

use axum::http::{HeaderMap, HeaderValue, header};
use mime::Mime;
use serde_json::Value;

use super::fields::EXAMPLE;
use super::own;
use super::parameters::{ParameterSource, TextParameters};
use super::tei::{self, TeiShape};
use super::texts::Arity;
use crate::api::content::{is_json, require_identity};
use crate::api::json;
use crate::error::Refusal;
use crate::serving::Request;

/// The shape of the answer to a request.
#[derive(Debug)]
pub(crate) enum AnswerShape {
    Own(Arity),
    Tei(TeiShape),
}

/// A decoded body.
#[derive(Debug)]
pub(crate) struct DecodedBody {
    pub(crate) request: Request,
    pub(crate) shape: AnswerShape,
}

impl From<TextParameters> for DecodedBody {
    fn from(parameters: TextParameters) -> Self {
        Self {
            request: parameters.into(),
            shape: AnswerShape::Own(Arity::Single),
        }
    }
}

/// Decodes the body of a `POST /predict`.
///
/// # Errors
/// A body that is compressed, of an unknown type, or not what its type says; a [`Refusal`] that never repeats
/// the text.
pub fn decode_body(headers: &HeaderMap, body: &[u8]) -> Result<Request, Refusal> {
    decode(headers, body).map(|decoded| decoded.request)
}

/// Decodes a body and finds the shape of its answer.
pub(crate) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<DecodedBody, Refusal> {
    require_identity(headers)?;
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
        let source = ParameterSource {
            name: "the form",
            example: "query=music",
        };
        TextParameters::parse(body, source).map(DecodedBody::from)
    } else {
        Err(refused(found))
    }
}

fn decode_json(body: &[u8]) -> Result<DecodedBody, Refusal> {
    // The parser's message gives the position; it never repeats the text.
    let value = json::parse(body).map_err(|error| {
        error.refusal(|error| {
            Refusal::Malformed(format!("the body is not JSON ({error}); {EXAMPLE}"))
        })
    })?;
    let (request, shape) = match value {
        Value::Object(map) if map.contains_key("inputs") => {
            let (request, shape) = tei::decode_object(map)?;
            (request, AnswerShape::Tei(shape))
        }
        Value::Object(map) => {
            let (request, arity) = own::decode_object(map)?;
            (request, AnswerShape::Own(arity))
        }
        Value::Array(_) => {
            let (request, arity) = own::decode_texts(value, None)?;
            (request, AnswerShape::Own(arity))
        }
        _ => {
            let what = format!("the JSON body is not an object; {EXAMPLE}");
            return Err(Refusal::Invalid(what));
        }
    };
    Ok(DecodedBody { request, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<(usize, Arity), String> {
        match decode_json(body.as_bytes()) {
            Ok(decoded) => {
                let arity = match decoded.shape {
                    AnswerShape::Own(arity) | AnswerShape::Tei(TeiShape { arity, .. }) => arity,
                };
                Ok((decoded.request.texts.len(), arity))
            }
            Err(refusal) => Err(format!("{} {refusal}", refusal.status())),
        }
    }

    #[test]
    fn our_own_json() {
        assert_eq!(texts(r#"{"query": "a"}"#), Ok((1, Arity::Single)));
        assert_eq!(texts(r#"{"query": ["a"]}"#), Ok((1, Arity::List)));
        let pair = r#"{"query": {"text": "a", "text_pair": "b"}}"#;
        assert_eq!(texts(pair), Ok((1, Arity::Single)));
        let pair = r#"[{"text": "a", "text_pair": "b"}, "c"]"#;
        assert_eq!(texts(pair), Ok((2, Arity::List)));
        assert_eq!(texts(r#"["a", "b", "c"]"#), Ok((3, Arity::List)));
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
    fn the_json_of_tei() {
        let single = Ok((1, Arity::Single));
        assert_eq!(texts(r#"{"inputs": "a"}"#), single);
        assert_eq!(texts(r#"{"inputs": ["a", "b"]}"#), single, "a pair");
        assert_eq!(texts(r#"{"inputs": ["a"]}"#), single);
        for pair in [
            r#"{"inputs": {"text": "a", "text_pair": "b"}}"#,
            r#"{"inputs": "a", "text_pair": "b"}"#,
        ] {
            assert_eq!(texts(pair), single);
        }
        let list = |count| Ok((count, Arity::List));
        assert_eq!(texts(r#"{"inputs": ["a", "b", "c"]}"#), list(3));
        assert_eq!(texts(r#"{"inputs": [["a"], ["b", "c"]]}"#), list(2));
        let right = r#"{"inputs": "a", "truncation_direction": "right"}"#;
        assert_eq!(texts(right), single);
        for (body, status) in [
            (r#"{"inputs": []}"#, "400"),
            (r#"{"inputs": [["a", "b", "c"]]}"#, "422"),
            (r#"{"inputs": 7}"#, "422"),
            (r#"{"inputs": {"text": "a", "text_pair": 7}}"#, "422"),
            (r#"{"inputs": {"text": "a", "pair": "b"}}"#, "422"),
            (r#"{"inputs": {"text_pair": "b"}}"#, "422"),
            (r#"{"inputs": ["a", "b"], "text_pair": "c"}"#, "422"),
            (
                r#"{"inputs": ["a"], "text_pair": "c", "parameters": {}}"#,
                "422",
            ),
            (r#"{"inputs": "a", "truncation_direction": "left"}"#, "422"),
        ] {
            let error = texts(body).unwrap_err();
            assert!(error.starts_with(status), "{body}: {error}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_text() {
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
}
