//! Predictions in our own JSON, as HTML and as plain text.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::scores::{ScoreAnswer, score_answers, shared_text, with_headers};
use crate::api::accept::AnswerFormat;
use crate::api::request::Arity;
use crate::model::Labels;
use crate::serving::{Prediction, Predictions};

/// One text's answer in our own JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnAnswer {
    /// The best class.
    #[serde(serialize_with = "shared_text")]
    #[schema(value_type = String)]
    label: Arc<str>,
    /// Its score.
    score: f32,
    /// All classes with their scores, the best first.
    scores: Vec<ScoreAnswer>,
    /// Tokens the model saw, special ones included.
    tokens: usize,
    /// Whether the end of the text was cut off.
    truncated: bool,
}

impl OwnAnswer {
    fn new(labels: &Labels, item: &Prediction) -> Self {
        let scores = score_answers(labels.scores(&item.logits));
        Self {
            label: Arc::clone(&scores[0].label),
            score: scores[0].score,
            scores,
            tokens: item.tokens,
            truncated: item.truncated,
        }
    }
}

/// The answer to a text, or to a list of texts in its order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OwnAnswers {
    One(OwnAnswer),
    List(Vec<OwnAnswer>),
}

impl OwnAnswers {
    pub(crate) fn new(predictions: &Predictions, arity: Arity) -> Self {
        let answer = |item| OwnAnswer::new(&predictions.labels, item);
        match (arity, &predictions.items[..]) {
            (Arity::Single, [item]) => Self::One(answer(item)),
            (_, items) => Self::List(items.iter().map(answer).collect()),
        }
    }
}

/// Encodes predictions in a format.
pub(crate) fn encode(predictions: &Predictions, format: AnswerFormat, arity: Arity) -> Response {
    let content_type = match format {
        AnswerFormat::Json => {
            let response = Json(OwnAnswers::new(predictions, arity)).into_response();
            return with_headers(response, predictions);
        }
        AnswerFormat::Html => "text/html; charset=utf-8",
        AnswerFormat::Plain => "text/plain; charset=utf-8",
    };
    let mut text = String::new();
    for (index, item) in predictions.items.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let label = predictions.labels.best(&item.logits).label;
        match format {
            AnswerFormat::Html => text.push_str(&escape(&label)),
            AnswerFormat::Plain | AnswerFormat::Json => text.push_str(&label),
        }
    }
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
    with_headers((content_type, text).into_response(), predictions)
}

/// Escapes a label for HTML: a checkpoint's labels may contain anything.
fn escape(label: &str) -> String {
    label
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
