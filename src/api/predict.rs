//! `/predict`: GET with a query string, POST with our own JSON or with the shape of Hugging
//! Face's text-embeddings-inference (TEI).

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::accept::{Form, choose};
use super::request::{List, Shape, decode};
use super::{Shared, decode_query};
use crate::error::Refusal;
use crate::model::Score;
use crate::serving::Predictions;

/// Set to `true` on answers whose text was cut to the model's length.
pub(super) const TRUNCATED: HeaderName = HeaderName::from_static("x-intentd-truncated");

/// `GET /predict?query=music`.
pub(super) async fn get(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let response = answer_query(&shared, &uri, &headers).await.into_response();
    shared.with_report(&headers, response)
}

async fn answer_query(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let offer = shared.offer(headers)?;
    let form = choose(headers, &[Form::Html, Form::Json, Form::Plain]);
    let request = match decode_query(uri.query().unwrap_or_default()) {
        Ok(request) => request,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let predictions = offer.classify(request).await?;
    Ok(encode(&predictions, form, List::No))
}

/// `POST /predict`.
pub(super) async fn post(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Response {
    let response = answer_body(&shared, &headers, body).await.into_response();
    shared.with_report(&headers, response)
}

async fn answer_body(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let offer = shared.offer(headers)?;
    let form = choose(headers, &[Form::Json, Form::Html, Form::Plain]);
    let read = shared.body.read(headers, body, offer.deadline()).await;
    // Held until the answer is there: the texts take as much memory as the body did.
    let (decoded, held) = match read.and_then(|(body, held)| Ok((decode(headers, &body)?, held))) {
        Ok(decoded) => decoded,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let predictions = offer.classify(decoded.request).await?;
    Ok(held.carry(match decoded.shape {
        Shape::Own(list) => encode(&predictions, form, list),
        Shape::Tei { list, raw_scores } => encode_tei(&predictions, list, raw_scores),
    }))
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
