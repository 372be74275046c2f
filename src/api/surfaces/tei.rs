//! What clients of Hugging Face's text-embeddings-inference (TEI) and of its hub ask beyond `/predict`: TEI's
//! other routes that make sense for a classifier, and SageMaker's names for them.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::time::timeout_at;
use utoipa::{OpenApi, ToSchema};

use super::predict::{PredictAnswer, answer_body};
use crate::api::fallback::{only_get, only_post};
use crate::api::refusal::{ErrorAnswer, Refusals};
use crate::api::request::{
    FormRequest, PredictRequest, TEI, Texts, TokenizeTexts, decode_tokenize,
};
use crate::api::state::ApiState;
use crate::api::surface::{Route, Surface};
use crate::error::Refusal;
use crate::model::Token;
use crate::serving::Phase;

/// The surface.
pub(super) static SURFACE: Surface = Surface {
    label: TEI,
    title: "text-embeddings-inference",
    routes: &[
        Route::new("/invocations", |_| post(invocations).fallback(only_post)).traced(),
        Route::new("/tokenize", |_| post(tokenize).fallback(only_post)).traced(),
        Route::new("/info", |_| get(info).fallback(only_get)),
        Route::new("/health", |_| get(health).fallback(only_get)),
        Route::new("/ping", |_| get(health).fallback(only_get)).alias_of("/health"),
    ],
    guard: None,
    openapi: Some(TeiDocument::openapi),
    fuzz_targets: &["request_body"],
};

#[derive(OpenApi)]
#[openapi(
    paths(invocations, tokenize, info, health),
    tags((name = "tei", description = "What clients of text-embeddings-inference and of the hub ask"))
)]
struct TeiDocument;

/// The most text, in bytes, that a `/tokenize` takes at once: far more than any model reads.
const TOKENIZED_MAX: usize = 64 << 10;

/// Bytes that a token takes in memory and in the answer. A byte of text is one token at most.
const BYTES_A_TOKEN: usize = 200;

/// SageMaker's name for `/predict`.
#[utoipa::path(post, path = "/invocations", tag = "tei", operation_id = "invocations",
    request_body(content((PredictRequest = "application/json"), (FormRequest = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "As for /predict", content(
            (PredictAnswer = "application/json"), (String = "text/html"), (String = "text/plain"))),
        Refusals,
    ))]
async fn invocations(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut surface = TEI;
    let answered = answer_body(&state, &mut surface, &uri, &headers, body).await;
    state.finish(surface, &headers, answered.into_response())
}

/// Whether requests are answered.
#[utoipa::path(get, path = "/health", tag = "tei", operation_id = "health",
    responses(
        (status = 200, description = "They are"),
        (status = 405, description = "The route exists, the method does not", body = ErrorAnswer),
        (status = 503, description = "The model is loading, or this replica is about to end", body = ErrorAnswer),
    ))]
async fn health(State(state): State<ApiState>) -> Result<StatusCode, Refusal> {
    match state.classifier.phase() {
        _ if state.classifier.is_ready() => Ok(StatusCode::OK),
        Phase::Loading => Err(Refusal::Loading),
        _ => Err(Refusal::Unhealthy),
    }
}

/// What is known of the model and of the server's limits.
#[derive(Debug, Serialize, ToSchema)]
struct Info {
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
async fn info(State(state): State<ApiState>, headers: HeaderMap) -> Result<Json<Info>, Refusal> {
    // As in TEI: where the model comes from is for clients with a key.
    state.authorize(&headers)?;
    let model = state.classifier.model().ok_or(Refusal::Loading)?;
    let limits = state.classifier.limits();
    let concurrency = state.classifier.metrics().concurrency_limit.get();
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
struct TokenAnswer {
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

/// The request of `/tokenize`.
#[derive(ToSchema)]
#[schema(example = json!({"inputs": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
struct TokenizeRequest {
    inputs: Texts,
    /// Whether `[CLS]` and `[SEP]` are wanted; true by default.
    add_special_tokens: Option<bool>,
}

/// The tokens of each text.
#[utoipa::path(post, path = "/tokenize", tag = "tei", operation_id = "tokenize",
    request_body(content = TokenizeRequest),
    responses((status = 200, description = "A list of tokens a text", body = Vec<Vec<TokenAnswer>>), Refusals))]
async fn tokenize(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    state.authorize(&headers)?;
    let deadline = state.deadline(&headers);
    let (body, mut reservation) = state.bodies.read(&headers, body, deadline).await?;
    let TokenizeTexts {
        texts,
        with_special,
    } = decode_tokenize(&headers, &body)?;
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > TOKENIZED_MAX {
        let (found, max) = (bytes, TOKENIZED_MAX);
        return Err(Refusal::TooMuchText { found, max });
    }
    reservation.grow(bytes * BYTES_A_TOKEN)?;
    let tokenize = state.classifier.tokenize(texts, with_special);
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
    Ok(reservation.carry(Json(answers).into_response()))
}
