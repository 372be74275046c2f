//! `/predict`: GET with a query string, POST with our own JSON or with the shape of Hugging
//! Face's text-embeddings-inference (TEI).

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::accept::{Form, choose};
use super::request::{List, Shape, decode, read};
use super::{Shared, decode_query};
use crate::error::Refusal;
use crate::model::Score;
use crate::serving::Predictions;

/// Set to `true` on answers whose text was cut to the model's length.
const TRUNCATED: HeaderName = HeaderName::from_static("x-intentd-truncated");

/// `GET /predict?query=music`.
pub(super) async fn get(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let form = choose(&headers, &[Form::Html, Form::Json, Form::Plain]);
    let request = decode_query(uri.query().unwrap_or_default())
        .map_err(|refusal| shared.classifier.turn_away(refusal))?;
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
    let decoded = match read(&headers, body, shared.body_bytes_max).await {
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
    finish((content_type, text).into_response(), predictions)
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
    finish(response, predictions)
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
    finish(response, predictions)
}

fn finish(mut response: Response, predictions: &Predictions) -> Response {
    // Which form the answer takes depends on it.
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
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
