//! Predictions in our own JSON, as HTML and as plain text.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::accept::Form;
use super::request::List;
use crate::model::{Labels, Score};
use crate::serving::{Prediction, Predictions};

/// Set to `true` on answers whose text was cut to the model's length.
pub(super) const TRUNCATED: HeaderName = HeaderName::from_static("x-intentd-truncated");

/// One class and its score.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScoreAnswer {
    /// Probability (softmax, sigmoid) or logit (regression, raw_scores).
    score: f32,
    /// The class.
    #[serde(serialize_with = "text")]
    #[schema(value_type = String)]
    label: Arc<str>,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl From<Score> for ScoreAnswer {
    fn from(Score { label, score }: Score) -> Self {
        Self { score, label }
    }
}

/// All classes with their scores, the best first.
pub(super) fn score_answers(scores: Vec<Score>) -> Vec<ScoreAnswer> {
    scores.into_iter().map(ScoreAnswer::from).collect()
}

/// One text's answer in our own JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OwnAnswer {
    /// The best class.
    #[serde(serialize_with = "text")]
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
pub(super) enum OwnAnswers {
    One(OwnAnswer),
    List(Vec<OwnAnswer>),
}

impl OwnAnswers {
    pub(super) fn new(predictions: &Predictions, list: List) -> Self {
        let answer = |item| OwnAnswer::new(&predictions.labels, item);
        match (list, &predictions.items[..]) {
            (List::No, [item]) => Self::One(answer(item)),
            (_, items) => Self::List(items.iter().map(answer).collect()),
        }
    }
}

/// The answer in the form that the client likes best.
pub(super) fn encode(predictions: &Predictions, form: Form, list: List) -> Response {
    let content_type = match form {
        Form::Json => {
            let response = Json(OwnAnswers::new(predictions, list)).into_response();
            return finish(response, predictions);
        }
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

/// The headers that all answers with predictions have.
pub(super) fn finish(mut response: Response, predictions: &Predictions) -> Response {
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
