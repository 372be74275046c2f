//! Scores of classes, and the headers of every answer with predictions.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::model::Score;
use crate::serving::Predictions;

/// Set to `true` on answers to a text that was cut to the model's length.
const TRUNCATED: HeaderName = HeaderName::from_static("x-intentd-truncated");

/// One class and its score.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScoreAnswer {
    /// Probability (softmax, sigmoid) or logit (regression, raw_scores).
    pub(super) score: f32,
    /// The class.
    #[serde(serialize_with = "shared_text")]
    #[schema(value_type = String)]
    pub(super) label: Arc<str>,
}

/// Serializes a text that is shared.
pub(super) fn shared_text<S: Serializer>(
    text: &Arc<str>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
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

/// Adds the headers that every answer with predictions carries.
pub(super) fn with_headers(mut response: Response, predictions: &Predictions) -> Response {
    // The format of the answer depends on Accept.
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
