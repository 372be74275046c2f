//! Predictions in the JSON of text-embeddings-inference (TEI), with its headers.

use std::time::Instant;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::scores::{ScoreAnswer, score_answers, with_headers};
use crate::api::request::{Arity, TeiShape};
use crate::model::Text;
use crate::serving::{Predictions, Request};

/// All classes of a text with their scores, the best first; a list of these for a list of texts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TeiAnswers {
    One(Vec<ScoreAnswer>),
    List(Vec<Vec<ScoreAnswer>>),
}

/// Encodes predictions in the shape that the request asked for.
pub(crate) fn encode_tei(
    shape: TeiShape,
    predictions: &Predictions,
    stopwatch: &Stopwatch,
    on_device: bool,
) -> Response {
    let labels = &predictions.labels;
    let scoring = shape.scoring.unwrap_or_else(|| labels.scoring());
    let scores = |logits: &[f32]| {
        let mut scores = labels.scored(scoring, logits);
        scores.truncate(shape.top.unwrap_or(usize::MAX));
        score_answers(scores)
    };
    let answers = match (shape.arity, &predictions.items[..]) {
        (Arity::Single, [item]) => TeiAnswers::One(scores(&item.logits)),
        (_, items) => TeiAnswers::List(items.iter().map(|item| scores(&item.logits)).collect()),
    };
    let mut response = with_headers(Json(answers).into_response(), predictions);
    stopwatch.write(predictions, on_device, response.headers_mut());
    response
}

/// Measures a request for TEI's `x-` headers: its size and where its time went.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    since: Instant,
    characters: usize,
}

impl Stopwatch {
    pub(crate) fn start(request: &Request) -> Self {
        let characters = |text: &Text| match text {
            Text::Single(text) => text.chars().count(),
            Text::Pair(first, second) => first.chars().count() + second.chars().count(),
        };
        Self {
            since: Instant::now(),
            characters: request.texts.iter().map(characters).sum(),
        }
    }

    /// Writes the headers. Times are in whole milliseconds, as in TEI.
    fn write(&self, predictions: &Predictions, on_device: bool, headers: &mut HeaderMap) {
        let total = self.since.elapsed().as_millis();
        let computed = predictions.items.iter().map(|item| item.computed).max();
        let computed = computed.unwrap_or_default();
        let queued = predictions.inside.saturating_sub(computed);
        let tokens: usize = predictions.items.iter().map(|item| item.tokens).sum();
        let kind = if on_device { "gpu" } else { "cpu" };
        headers.insert("x-compute-type", HeaderValue::from_static(kind));
        for (name, value) in [
            ("x-compute-time", total),
            ("x-compute-characters", self.characters as u128),
            ("x-compute-tokens", tokens as u128),
            ("x-total-time", total),
            ("x-tokenization-time", predictions.tokenized.as_millis()),
            ("x-queue-time", queued.as_millis()),
            ("x-inference-time", computed.as_millis()),
        ] {
            let value = u64::try_from(value).unwrap_or(u64::MAX);
            headers.insert(HeaderName::from_static(name), value.into());
        }
    }
}
