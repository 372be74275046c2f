//! `/predict`: GET with a query string, POST with our own JSON or with the shape of Hugging
//! Face's text-embeddings-inference (TEI).

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use mime::Mime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Shared;
use super::accept::{Form, choose};
use crate::error::Refusal;
use crate::model::{Score, Text, TooLong};
use crate::serving::{Predictions, Request};

/// Set to `true` on answers whose text was cut to the model's length.
const TRUNCATED: HeaderName = HeaderName::from_static("x-intentd-truncated");

const EXAMPLE: &str = "for example {\"query\": \"play some jazz\"}";

/// `GET /predict?query=music`.
pub(super) async fn get(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let form = choose(&headers, &[Form::Html, Form::Json, Form::Plain]);
    let parameters = uri.query().unwrap_or_default();
    let decoded = parameters_of(
        parameters.as_bytes(),
        "the query string",
        "/predict?query=music",
    );
    let (query, too_long) = decoded.map_err(|refusal| shared.classifier.turn_away(refusal))?;
    let request = Request {
        texts: vec![Text::Single(query)],
        too_long,
    };
    let predictions = shared.classifier.classify(request).await?;
    Ok(encode(&predictions, form, List::No))
}

/// `POST /predict`.
pub(super) async fn post(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let form = choose(&headers, &[Form::Json, Form::Html, Form::Plain]);
    let decoded = match read(body, shared.body_bytes_max).await {
        Ok(body) => decode(&headers, &body),
        Err(refusal) => Err(refusal),
    };
    let decoded = decoded.map_err(|refusal| shared.classifier.turn_away(refusal))?;
    let predictions = shared.classifier.classify(decoded.request).await?;
    Ok(match decoded.shape {
        Shape::Own(list) => encode(&predictions, form, list),
        Shape::Tei { list, raw_scores } => encode_tei(&predictions, list, raw_scores),
    })
}

/// Whether the client sent a list, and so gets one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    No,
    Yes,
}

/// How the answer has to look.
#[derive(Debug)]
enum Shape {
    Own(List),
    Tei { list: List, raw_scores: bool },
}

#[derive(Debug)]
struct Decoded {
    request: Request,
    shape: Shape,
}

async fn read(body: Body, max: usize) -> Result<Bytes, Refusal> {
    axum::body::to_bytes(body, max).await.map_err(|error| {
        // axum wraps the limit's error; any other means that the client broke off.
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            if error.is::<http_body_util::LengthLimitError>() {
                return Refusal::BodyTooLarge { max };
            }
            source = error.source();
        }
        Refusal::Malformed(format!("the body cannot be read: {error}"))
    })
}

fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Refusal> {
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
fn parameters_of(encoded: &[u8], place: &str, example: &str) -> Result<(String, TooLong), Refusal> {
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

/// Our own shape.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    query: Value,
    truncate: Option<bool>,
}

/// TEI's shape. Unknown keys pass, as they do there.
#[derive(Debug, Deserialize)]
struct Tei {
    inputs: Value,
    truncate: Option<bool>,
    truncation_direction: Option<Value>,
    #[serde(default)]
    raw_scores: bool,
}

fn decode_json(body: &[u8]) -> Result<Decoded, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        Refusal::Malformed(format!("the body is not JSON ({error}); {EXAMPLE}"))
    })?;
    let invalid = |error: serde_json::Error| {
        // serde names the key and the type it expected, never the text.
        Refusal::Invalid(format!(
            "the JSON body is not a request: {error}; {EXAMPLE}"
        ))
    };
    match &value {
        Value::Object(map) if map.contains_key("inputs") => {
            let tei: Tei = serde_json::from_value(value).map_err(invalid)?;
            decode_tei(tei)
        }
        Value::Object(_) => {
            let own: Own = serde_json::from_value(value).map_err(invalid)?;
            decode_own(own.query, own.truncate)
        }
        Value::Array(_) => decode_own(value, None),
        _ => Err(Refusal::Invalid(format!(
            "the JSON body is not an object; {EXAMPLE}"
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

fn decode_tei(tei: Tei) -> Result<Decoded, Refusal> {
    match tei
        .truncation_direction
        .as_ref()
        .map(|value| value.as_str())
    {
        None => {}
        Some(Some(direction)) if direction.eq_ignore_ascii_case("right") => {}
        Some(_) => {
            let what = "\"truncation_direction\" can only be \"right\": the beginning is kept";
            return Err(Refusal::Invalid(what.to_owned()));
        }
    }
    let (texts, list) = tei_inputs(tei.inputs)?;
    let request = Request {
        texts,
        too_long: too_long(tei.truncate),
    };
    Ok(Decoded {
        request,
        shape: Shape::Tei {
            list,
            raw_scores: tei.raw_scores,
        },
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

/// One text's answer in our own JSON.
#[derive(Debug, Serialize)]
struct OwnAnswer<'a> {
    label: &'a str,
    score: f32,
    scores: Vec<ScoreAnswer<'a>>,
    tokens: usize,
    truncated: bool,
}

/// One class, as TEI writes it.
#[derive(Debug, Serialize)]
struct ScoreAnswer<'a> {
    score: f32,
    label: &'a str,
}

fn score_answers(scores: &[Score]) -> Vec<ScoreAnswer<'_>> {
    scores
        .iter()
        .map(|s| ScoreAnswer {
            score: s.score,
            label: &s.label,
        })
        .collect()
}

fn encode(predictions: &Predictions, form: Form, list: List) -> Response {
    let content_type = match form {
        Form::Json => return encode_json(predictions, list),
        Form::Html => "text/html; charset=utf-8",
        Form::Plain => "text/plain; charset=utf-8",
    };
    let mut text = String::new();
    for (index, item) in predictions.items.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let label = predictions.labels.best(&item.logits).label;
        match form {
            Form::Html => text.push_str(&escape(&label)),
            Form::Plain | Form::Json => text.push_str(&label),
        }
    }
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
    mark_truncated((content_type, text).into_response(), predictions)
}

fn encode_json(predictions: &Predictions, list: List) -> Response {
    let scores: Vec<Vec<Score>> = predictions
        .items
        .iter()
        .map(|item| predictions.labels.scores(&item.logits))
        .collect();
    let answers: Vec<OwnAnswer<'_>> = scores
        .iter()
        .zip(&predictions.items)
        .map(|(scores, item)| OwnAnswer {
            label: &scores[0].label,
            score: scores[0].score,
            scores: score_answers(scores),
            tokens: item.tokens,
            truncated: item.truncated,
        })
        .collect();
    let response = match (list, answers.first()) {
        (List::No, Some(answer)) => Json(answer).into_response(),
        _ => Json(&answers).into_response(),
    };
    mark_truncated(response, predictions)
}

fn encode_tei(predictions: &Predictions, list: List, raw_scores: bool) -> Response {
    let labels = &predictions.labels;
    let scores: Vec<Vec<Score>> = predictions
        .items
        .iter()
        .map(|item| {
            if raw_scores {
                labels.raw(&item.logits)
            } else {
                labels.scores(&item.logits)
            }
        })
        .collect();
    let answers: Vec<Vec<ScoreAnswer<'_>>> = scores.iter().map(|s| score_answers(s)).collect();
    let response = match (list, answers.first()) {
        (List::No, Some(answer)) => Json(answer).into_response(),
        _ => Json(&answers).into_response(),
    };
    mark_truncated(response, predictions)
}

fn mark_truncated(mut response: Response, predictions: &Predictions) -> Response {
    if predictions.items.iter().any(|item| item.truncated) {
        response
            .headers_mut()
            .insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    response
}

/// A label as HTML text: a checkpoint may call its classes anything.
fn escape(label: &str) -> String {
    label
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
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
