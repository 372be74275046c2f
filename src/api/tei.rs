//! What clients of Hugging Face's text-embeddings-inference (TEI) and of its hub ask: their JSON on
//! `/predict`, and TEI's other routes that make sense for a classifier.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::timeout_at;
use utoipa::ToSchema;

use super::answer::{ScoreAnswer, finish, score_answers};
use super::openapi::{FormRequest, PredictAnswer, PredictRequest, Refusals, TokenizeRequest};
use super::refusal::ErrorAnswer;
use super::request::{List, tokenize};
use super::{Shared, predict};
use crate::error::Refusal;
use crate::metrics::Surface;
use crate::model::{Scoring, Text, Token};
use crate::serving::{Phase, Predictions, Request};

/// Bytes of text that are tokenized for people at once: far more than any model takes.
const TOKENIZED_MAX: usize = 64 << 10;

/// What a token takes in memory and in the answer. A byte of text is a token at most.
const BYTES_A_TOKEN: usize = 200;

/// How an answer has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TeiShape {
    /// Whether there is a list for each text, or only the one text's.
    pub(super) list: List,
    /// How scores are made of logits, if not as the checkpoint says.
    pub(super) scoring: Option<Scoring>,
    /// How many of the best classes are in it, if not all.
    pub(super) top: Option<usize>,
}

/// All classes of a text with their scores, the best first; a list of these for a list of texts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum TeiAnswers {
    One(Vec<ScoreAnswer>),
    List(Vec<Vec<ScoreAnswer>>),
}

impl TeiShape {
    pub(super) fn encode(
        self,
        predictions: &Predictions,
        stopwatch: &Stopwatch,
        shared: &Shared,
    ) -> Response {
        let labels = &predictions.labels;
        let scoring = self.scoring.unwrap_or_else(|| labels.scoring());
        let scores = |logits: &[f32]| {
            let mut scores = labels.scored(scoring, logits);
            scores.truncate(self.top.unwrap_or(usize::MAX));
            score_answers(scores)
        };
        let answers = match (self.list, &predictions.items[..]) {
            (List::No, [item]) => TeiAnswers::One(scores(&item.logits)),
            (_, items) => TeiAnswers::List(items.iter().map(|item| scores(&item.logits)).collect()),
        };
        let mut response = finish(Json(answers).into_response(), predictions);
        let model = shared.classifier.model();
        let on_device = model.is_some_and(|model| model.is_on_device);
        stopwatch.tell(predictions, on_device, response.headers_mut());
        response
    }
}

/// What the `x-` headers say of a request: its size, and where its time went.
#[derive(Debug)]
pub(super) struct Stopwatch {
    since: Instant,
    characters: usize,
}

impl Stopwatch {
    pub(super) fn start(request: &Request) -> Self {
        let characters = |text: &Text| match text {
            Text::Single(text) => text.chars().count(),
            Text::Pair(first, second) => first.chars().count() + second.chars().count(),
        };
        Self {
            since: Instant::now(),
            characters: request.texts.iter().map(characters).sum(),
        }
    }

    /// Times are in whole milliseconds, as TEI has them.
    fn tell(&self, predictions: &Predictions, on_device: bool, headers: &mut HeaderMap) {
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

/// SageMaker's name for `/predict`.
#[utoipa::path(post, path = "/invocations", tag = "tei", operation_id = "invocations",
    request_body(content((PredictRequest = "application/json"), (FormRequest = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "As for /predict", content(
            (PredictAnswer = "application/json"), (String = "text/html"), (String = "text/plain"))),
        Refusals,
    ))]
pub(super) async fn invocations(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut surface = Surface::Tei;
    let answered = predict::answer_body(&shared, &mut surface, (&uri, &headers), body).await;
    shared.finish(surface, &headers, answered.into_response())
}

/// Whether requests are answered.
#[utoipa::path(get, path = "/health", tag = "tei", operation_id = "health",
    responses(
        (status = 200, description = "They are"),
        (status = 405, description = "The route exists, the method does not", body = ErrorAnswer),
        (status = 503, description = "The model is loading, or this replica is about to end", body = ErrorAnswer),
    ))]
pub(super) async fn health(State(shared): State<Shared>) -> Result<StatusCode, Refusal> {
    match shared.classifier.phase() {
        _ if shared.classifier.is_ready() => Ok(StatusCode::OK),
        Phase::Loading => Err(Refusal::Loading),
        _ => Err(Refusal::Unhealthy),
    }
}

/// What is known of the model and of the server's limits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Info {
    /// Where the model came from.
    model_id: String,
    /// Always null: a checkpoint on disk does not say.
    model_sha: Option<String>,
    /// The type that the engine computes in.
    #[schema(example = "float32")]
    model_dtype: &'static str,
    /// What kind of model it is.
    model_type: ModelType,
    /// Requests in flight that are taken at most.
    max_concurrent_requests: usize,
    /// Tokens of a text, special ones included, after which it is cut.
    max_input_length: usize,
    /// Tokens in one batch.
    max_batch_tokens: usize,
    /// Texts in one batch.
    max_batch_requests: usize,
    /// Texts in one request.
    max_client_batch_size: usize,
    /// Always true: a text that is too long is cut unless the request says otherwise.
    auto_truncate: bool,
    /// Threads that tokenize.
    tokenization_workers: usize,
    /// The server's version.
    version: &'static str,
    /// Always null.
    sha: Option<String>,
    /// Always null.
    docker_label: Option<String>,
}

/// The kind of the model.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ModelType {
    /// It classifies texts.
    Classifier(Classes),
}

/// The classes by row of the classifier.
#[derive(Debug, Serialize, ToSchema)]
struct Classes {
    /// Names by row.
    #[schema(value_type = BTreeMap<String, String>)]
    id2label: BTreeMap<usize, String>,
    /// Rows by name.
    label2id: BTreeMap<String, usize>,
}

/// What is known of the model and of the server's limits.
#[utoipa::path(get, path = "/info", tag = "tei", operation_id = "info",
    responses(
        (status = 200, description = "What is known", body = Info),
        (status = 401, description = "No valid key (--api-keys)", body = ErrorAnswer),
        (status = 405, description = "The route exists, the method does not", body = ErrorAnswer),
        (status = 503, description = "The model is loading", body = ErrorAnswer),
    ))]
pub(super) async fn info(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Json<Info>, Refusal> {
    // As in TEI: where the model lies is nobody's business.
    shared.authorize(&headers)?;
    let model = shared.classifier.model().ok_or(Refusal::Loading)?;
    let limits = shared.classifier.limits();
    let concurrency = shared.classifier.metrics().concurrency_limit.get();
    let named = || model.labels.names().map(str::to_owned).enumerate();
    let classes = Classes {
        id2label: named().collect(),
        label2id: named().map(|(row, name)| (name, row)).collect(),
    };
    Ok(Json(Info {
        model_id: model.origin,
        model_sha: None,
        model_dtype: model.dtype,
        model_type: ModelType::Classifier(classes),
        max_concurrent_requests: usize::try_from(concurrency).unwrap_or(0),
        max_input_length: model.max_tokens,
        max_batch_tokens: limits.batch.tokens_max,
        max_batch_requests: limits.batch.texts_max,
        max_client_batch_size: limits.texts_max,
        auto_truncate: true,
        tokenization_workers: std::thread::available_parallelism().map_or(1, usize::from),
        version: env!("CARGO_PKG_VERSION"),
        sha: None,
        docker_label: None,
    }))
}

/// One token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenAnswer {
    /// Its row of the word embedding.
    id: u32,
    /// What stands in the text there, or the name of a special token.
    text: String,
    /// Whether it is a special one, like `[CLS]`.
    special: bool,
    /// The character at which it begins; null for a special one.
    start: Option<usize>,
    /// The character before which it ends; null for a special one.
    stop: Option<usize>,
}

impl From<Token> for TokenAnswer {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            text: token.text,
            special: token.span.is_none(),
            start: token.span.map(|span| span.0),
            stop: token.span.map(|span| span.1),
        }
    }
}

/// The tokens of each text.
#[utoipa::path(post, path = "/tokenize", tag = "tei", operation_id = "tokenize",
    request_body(content = TokenizeRequest),
    responses((status = 200, description = "A list of tokens a text", body = Vec<Vec<TokenAnswer>>), Refusals))]
pub(super) async fn tokens(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    shared.authorize(&headers)?;
    let deadline = shared.deadline(&headers);
    let (body, mut held) = shared.body.read(&headers, body, deadline).await?;
    let (texts, with_special) = tokenize(&headers, &body)?;
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > TOKENIZED_MAX {
        let (found, max) = (bytes, TOKENIZED_MAX);
        return Err(Refusal::TooMuchText { found, max });
    }
    held.grow(bytes * BYTES_A_TOKEN)?;
    let tokenize = shared.classifier.tokenize(texts, with_special);
    let tokens = match deadline {
        Some(deadline) => timeout_at(deadline, tokenize)
            .await
            .unwrap_or(Err(Refusal::Deadline)),
        None => tokenize.await,
    }?;
    let answers: Vec<Vec<TokenAnswer>> = tokens
        .into_iter()
        .map(|tokens| tokens.into_iter().map(TokenAnswer::from).collect())
        .collect();
    Ok(held.carry(Json(answers).into_response()))
}
