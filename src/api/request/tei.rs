//! The JSON of Hugging Face's text-embeddings-inference (TEI) and of its hub.

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::fields::{boolean, truncation};
use super::texts::{Arity, TextList, text_or_pair, with_second};
use crate::api::content::{is_json, require_identity};
use crate::api::json;
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;
use crate::model::{Scoring, Text};
use crate::serving::Request;

/// The surface of requests in TEI's format, on whichever route they come.
pub(crate) const TEI: SurfaceLabel = SurfaceLabel::new("tei");

/// The shape of an answer in TEI's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TeiShape {
    /// Whether there is a list for each text, or only the single text's.
    pub(crate) arity: Arity,
    /// How scores are made of logits, if not as the checkpoint says.
    pub(crate) scoring: Option<Scoring>,
    /// The number of best classes in it; all if `None`.
    pub(crate) top: Option<usize>,
}

/// Decodes an object with `inputs`. Unknown keys pass, as in TEI.
pub(super) fn decode_object(mut map: Map<String, Value>) -> Result<(Request, TeiShape), Refusal> {
    let is_right = |direction: &Value| {
        let direction = direction.as_str();
        direction.is_some_and(|direction| direction.eq_ignore_ascii_case("right"))
    };
    if map
        .remove("truncation_direction")
        .is_some_and(|direction| !is_right(&direction))
    {
        let what = "\"truncation_direction\" can only be \"right\": the beginning is kept";
        return Err(Refusal::Invalid(what.to_owned()));
    }
    let truncate = boolean(&mut map, "truncate")?;
    let raw_scores = boolean(&mut map, "raw_scores")?.unwrap_or(false);
    let inputs = map.remove("inputs").unwrap_or(Value::Null);
    let inputs = with_second(inputs, &mut map);
    let (texts, shape) = match map.remove("parameters") {
        Some(Value::Object(parameters)) => decode_pipeline(inputs, parameters)?,
        None => {
            let TextList { texts, arity } = text_or_pairs(inputs)?;
            let shape = TeiShape {
                arity,
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
        too_long: truncation(truncate),
    };
    let scoring = shape.scoring.or(raw_scores.then_some(Scoring::Identity));
    Ok((request, TeiShape { scoring, ..shape }))
}

/// Decodes what clients of the hub send (`huggingface_hub`), as the pipelines of transformers take it. A list
/// is a list of texts, and the answer is always a list of lists. Unknown parameters pass, as they do there.
fn decode_pipeline(
    inputs: Value,
    mut parameters: Map<String, Value>,
) -> Result<(Vec<Text>, TeiShape), Refusal> {
    let invalid = |what: &str| Refusal::Invalid(what.to_owned());
    let TextList { texts, .. } = TextList::from_json(inputs).ok_or_else(|| {
        invalid("\"inputs\" is not a text, a pair {\"text\", \"text_pair\"} or a list of these")
    })?;
    let scoring = match parameters.remove("function_to_apply") {
        None => None,
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
        None => None,
        Some(found) => match found.as_u64().map(usize::try_from) {
            Some(Ok(top)) if top > 0 => Some(top),
            _ => return Err(invalid("\"top_k\" is not a whole number above 0")),
        },
    };
    let shape = TeiShape {
        arity: Arity::List,
        scoring,
        top,
    };
    Ok((texts, shape))
}

/// The texts of a `POST /tokenize`.
#[derive(Debug)]
pub(crate) struct TokenizeTexts {
    pub(crate) texts: Vec<String>,
    /// Whether special tokens are wanted.
    pub(crate) with_special: bool,
}

/// Decodes the body of a `POST /tokenize`.
pub(crate) fn decode_tokenize(headers: &HeaderMap, body: &[u8]) -> Result<TokenizeTexts, Refusal> {
    require_identity(headers)?;
    if let Some(found) = headers.get(header::CONTENT_TYPE) {
        let found = String::from_utf8_lossy(found.as_bytes());
        if !found.parse().is_ok_and(|mime| is_json(&mime)) {
            let found = found.into_owned();
            return Err(Refusal::MediaType { found });
        }
    }
    let example = "for example {\"inputs\": \"play some jazz\"}";
    let value = json::parse(body).map_err(|error| {
        error.refusal(|error| {
            Refusal::Malformed(format!("the body is not JSON ({error}); {example}"))
        })
    })?;
    let Value::Object(mut map) = value else {
        let what = format!("the JSON body is not an object; {example}");
        return Err(Refusal::Invalid(what));
    };
    let with_special = boolean(&mut map, "add_special_tokens")?.unwrap_or(true);
    let inputs = map.remove("inputs").and_then(TextList::from_json);
    let TextList { texts, .. } = inputs.ok_or_else(|| {
        let what = "\"inputs\" is not a text or a list of texts";
        Refusal::Invalid(format!("{what}; {example}"))
    })?;
    if texts.is_empty() {
        return Err(Refusal::Empty);
    }
    let text = |text| match text {
        Text::Single(text) => Ok(text),
        Text::Pair(..) => {
            let what = "\"inputs\" has a pair, of which each text is to be sent by itself";
            Err(Refusal::Invalid(format!("{what}; {example}")))
        }
    };
    Ok(TokenizeTexts {
        texts: texts.into_iter().map(text).collect::<Result<_, _>>()?,
        with_special,
    })
}

/// Decodes TEI's `inputs`: a text, a pair (a list of two), or a list of lists of one or two. A flat list of
/// any other length, which TEI refuses, is a list of texts here. A pair may also be an object, as in transformers.
pub(crate) fn text_or_pairs(inputs: Value) -> Result<TextList, Refusal> {
    let wrong = || {
        let what = "\"inputs\" is not a text, a pair [\"a\", \"b\"] or {\"text\", \"text_pair\"}, or a list [[\"a\"], [\"b\", \"c\"]]";
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
        item => text_or_pair(item).ok_or_else(wrong),
    };
    match inputs {
        Value::String(text) => Ok(TextList::single(Text::Single(text))),
        Value::Array(items) if items.is_empty() => Err(Refusal::Empty),
        Value::Array(items) if items.len() <= 2 && items.iter().all(Value::is_string) => {
            Ok(TextList::single(single_or_pair(Value::Array(items))?))
        }
        Value::Array(items) => Ok(TextList {
            texts: items
                .into_iter()
                .map(single_or_pair)
                .collect::<Result<_, _>>()?,
            arity: Arity::List,
        }),
        pair => Ok(TextList::single(text_or_pair(pair).ok_or_else(wrong)?)),
    }
}
