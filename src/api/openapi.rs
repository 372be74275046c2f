//! The description of the HTTP surfaces (OpenAPI 3.1) and a page to browse it with. It is made of what
//! stands at the handlers; bodies that are read by hand have their schemas here.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{PathItem, RefOr, Required};
use utoipa::{IntoResponses, OpenApi, ToSchema};
use utoipa_swagger_ui::Config;

use super::answer::OwnAnswers;
use super::cloudevents::EventAnswer;
use super::inference::rest;
use super::refusal::ErrorAnswer;
use super::tei::TeiAnswers;
use super::{admin, predict, tei};
use crate::error::Refusal;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "intentd",
        description = "Intent detection: a BERT classifier behind a queue. The same port speaks gRPC \
                       (inference.GRPCInferenceService, grpc.health.v1.Health, reflection). Metrics and \
                       autoscaling hints are on the operators' port."
    ),
    paths(
        predict::get,
        predict::post,
        tei::invocations,
        tei::tokens,
        tei::info,
        tei::health,
        rest::server,
        rest::live,
        rest::ready,
        rest::model,
        rest::model_ready,
        rest::infer,
        admin::healthz,
        admin::readyz,
        get_document,
        get_home,
    ),
    tags(
        (name = "predict", description = "Predictions, by curl or from a browser, and for CloudEvents"),
        (name = "tei", description = "What clients of text-embeddings-inference and of the hub ask"),
        (name = "inference", description = "The Open Inference Protocol, version 2"),
        (name = "health", description = "For probes"),
    )
)]
struct Document;

/// How a key is sent, where the server wants one (--api-keys).
fn key() -> SecurityScheme {
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())
}

/// What is refused, and why; the same for all requests for predictions.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "a description of what Refusal answers")]
pub(super) enum Refusals {
    /// The request cannot be read as what it claims to be, or holds no text.
    #[response(status = 400)]
    Malformed(ErrorAnswer),
    /// No valid key (--api-keys).
    #[response(status = 401)]
    Unauthorized(ErrorAnswer),
    /// The route exists, the method does not.
    #[response(status = 405)]
    Method(ErrorAnswer),
    /// The body did not arrive in time.
    #[response(status = 408)]
    BodyTimeout(ErrorAnswer),
    /// The body is larger than --max-body-bytes.
    #[response(status = 413)]
    TooLarge(ErrorAnswer),
    /// The body is of a type or in an encoding that is not read.
    #[response(status = 415)]
    MediaType(ErrorAnswer),
    /// The request can be read but makes no sense.
    #[response(status = 422)]
    Invalid(ErrorAnswer),
    /// More is asked than can be answered in time; Retry-After says when it makes sense to try again.
    #[response(status = 429)]
    Overloaded(ErrorAnswer),
    /// The engine failed.
    #[response(status = 500)]
    Engine(ErrorAnswer),
    /// The model is loading, or this replica is about to end.
    #[response(status = 503)]
    Unavailable(ErrorAnswer),
    /// The request's time was up.
    #[response(status = 504)]
    Deadline(ErrorAnswer),
}

/// A text or a list of texts.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(super) enum Texts {
    One(String),
    List(Vec<String>),
}

/// Our own request.
#[derive(ToSchema)]
#[schema(example = json!({"query": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(super) struct OwnRequest {
    /// What to classify.
    query: Texts,
    /// Whether a text that is too long is cut; true by itself.
    truncate: Option<bool>,
}

/// A text, a pair of texts, or a list of either.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(super) enum TeiInputs {
    /// A text.
    One(String),
    /// Two are a pair; one or more than two are a list.
    Texts(Vec<String>),
    /// A list of texts in lists of one, and of pairs in lists of two.
    Batch(Vec<Vec<String>>),
}

/// The request of text-embeddings-inference and of `huggingface_hub`.
#[derive(ToSchema)]
#[schema(example = json!({"inputs": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(super) struct TeiRequest {
    /// What to classify.
    inputs: TeiInputs,
    /// Whether a text that is too long is cut; true by itself.
    truncate: Option<bool>,
    /// Whether logits are wanted in place of scores.
    raw_scores: Option<bool>,
    /// Only "right": the beginning is kept.
    truncation_direction: Option<String>,
    /// Makes it a request of the hub: a list is a list of texts, and the answer a list of lists.
    parameters: Option<HubParameters>,
}

/// Parameters of `huggingface_hub`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
pub(super) struct HubParameters {
    /// "softmax", "sigmoid" or "none".
    function_to_apply: Option<String>,
    /// How many of the best classes are wanted.
    #[schema(minimum = 1)]
    top_k: Option<u32>,
}

/// What `/predict` takes as JSON.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(super) enum PredictRequest {
    Own(OwnRequest),
    Texts(Vec<String>),
    Tei(TeiRequest),
}

/// What `/predict` takes as a form.
#[derive(ToSchema)]
#[schema(example = json!({"query": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(super) struct FormRequest {
    query: String,
    truncate: Option<bool>,
}

/// A CloudEvent in structured mode. In binary mode its attributes are headers `ce-…` and its data is the
/// body.
#[derive(ToSchema)]
#[schema(example = json!({
    "specversion": "1.0", "id": "1", "source": "/console", "type": "message", "data": "play some jazz"
}))]
#[expect(dead_code, reason = "a description")]
pub(super) struct EventRequest {
    /// "1.0".
    #[schema(min_length = 1)]
    specversion: String,
    #[schema(min_length = 1)]
    id: String,
    #[schema(min_length = 1)]
    source: String,
    #[schema(min_length = 1)]
    r#type: String,
    /// The type of the data; JSON when nothing is said.
    datacontenttype: Option<String>,
    /// A text, a list of texts, or an object with `query`, `text` or `inputs` (--event-text-pointer).
    data: Option<Value>,
}

/// What `/predict` answers: our own shape, that of text-embeddings-inference, or one for a batch of events.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(super) enum PredictAnswer {
    Own(OwnAnswers),
    Tei(TeiAnswers),
    Events(Vec<EventAnswer>),
}

/// The request of `/tokenize`.
#[derive(ToSchema)]
#[schema(example = json!({"inputs": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(super) struct TokenizeRequest {
    inputs: Texts,
    /// Whether `[CLS]` and `[SEP]` are wanted; true by itself.
    add_special_tokens: Option<bool>,
}

/// A tensor of texts.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
pub(super) struct InputTensor {
    /// "text", and "text_pair" for the second texts of pairs.
    name: String,
    /// "BYTES".
    datatype: String,
    shape: Vec<i64>,
    /// The texts in row-major order, nested or not.
    data: Option<Vec<String>>,
    /// `binary_data_size` in place of `data`: the texts are behind the JSON.
    parameters: Option<Value>,
}

/// An output that is wanted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
pub(super) struct OutputRequest {
    /// "label", "score", "scores" or "logits".
    name: String,
    /// `classification`, the number of classes that are wanted as "score:row:label"; `binary_data`.
    parameters: Option<Value>,
}

/// A request for inference.
#[derive(ToSchema)]
#[schema(example = json!({
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["play some jazz"]}]
}))]
#[expect(dead_code, reason = "a description")]
pub(super) struct InferRequest {
    /// Comes back in the answer.
    id: Option<String>,
    inputs: Vec<InputTensor>,
    /// All when there is none.
    outputs: Option<Vec<OutputRequest>>,
    /// `truncate`, `timeout` in microseconds, `binary_data_output`.
    parameters: Option<Value>,
}

/// The document, whose routes of several names are told apart.
fn document() -> utoipa::openapi::OpenApi {
    const TWINS: [(&str, &str); 5] = [
        ("/ping", "/health"),
        (
            "/v2/models/{model}/versions/{version}",
            "/v2/models/{model}",
        ),
        (
            "/v2/models/{model}/versions/{version}/ready",
            "/v2/models/{model}/ready",
        ),
        (
            "/v2/models/{model}/versions/{version}/infer",
            "/v2/models/{model}/infer",
        ),
        ("/", "/predict"),
    ];
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", key());
    document.security = Some(vec![
        // A server without --api-keys wants none.
        SecurityRequirement::default(),
        SecurityRequirement::new::<_, [&str; 0], _>("key", []),
    ]);
    let paths = &mut document.paths.paths;
    let predict = paths
        .get_mut("/predict")
        .and_then(|item| item.post.as_mut());
    let body = predict.and_then(|operation| operation.request_body.as_mut());
    if let Some(RefOr::T(body)) = body {
        // The text may be in the address.
        body.required = Some(Required::False);
    }
    for (twin, path) in TWINS {
        let Some(mut item) = paths.get(path).cloned() else {
            continue;
        };
        if twin == "/" {
            item.get = None;
        }
        rename(&mut item, twin);
        paths
            .entry(twin.to_owned())
            .or_default()
            .merge_operations(item);
    }
    document
}

/// Gives the operations of a twin names of their own, and its parameter where it has one more.
fn rename(item: &mut PathItem, path: &str) {
    for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
        let suffix = path.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let id = operation.operation_id.take().unwrap_or_default();
        operation.operation_id = Some(format!("{id}{suffix}"));
        if path.contains("{version}") {
            let parameter = utoipa::openapi::path::Parameter::builder()
                .name("version")
                .parameter_in(utoipa::openapi::path::ParameterIn::Path)
                .required(Required::True)
                .description(Some("\"1\""))
                .schema(Some(
                    utoipa::openapi::Object::builder()
                        .schema_type(utoipa::openapi::schema::Type::String),
                ))
                .build();
            operation
                .parameters
                .get_or_insert_default()
                .push(parameter.into());
        }
    }
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // Made of constants: a test shows that it can be written.
    let mut value = serde_json::to_value(document()).unwrap_or_default();
    any_of(&mut value);
    format!("{value:#}")
});

/// Shapes that exclude each other are the exception here: a list that is empty fits each kind of list.
fn any_of(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(shapes) = map.remove("oneOf") {
                map.insert("anyOf".to_owned(), shapes);
            }
            map.values_mut().for_each(any_of);
        }
        Value::Array(items) => items.iter_mut().for_each(any_of),
        _ => {}
    }
}

/// The description of all this.
#[utoipa::path(get, path = "/openapi.json", tag = "health", operation_id = "openapi",
    responses((status = 200, description = "This document", body = Value), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
pub(super) async fn get_document() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, DOCUMENT.as_str()).into_response()
}

/// A page for people.
#[utoipa::path(get, path = "/", tag = "health", operation_id = "home",
    responses((status = 303, description = "To /docs/, where this document can be browsed"),
        (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
pub(super) async fn get_home() -> Redirect {
    Redirect::to("/docs/")
}

/// `GET /docs/`: the page.
pub(super) async fn get_page() -> Result<Response, Refusal> {
    part("index.html")
}

/// `GET /docs/…`: what the page is made of.
pub(super) async fn get_part(
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(path) = path.map_err(|_| Refusal::NotFound)?;
    part(&path)
}

fn part(path: &str) -> Result<Response, Refusal> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        // The page's own validator would send this server's address to somebody else's.
        Arc::new(Config::from("/openapi.json").validator_url("none"))
    });
    match utoipa_swagger_ui::serve(path, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            let content_type = [(header::CONTENT_TYPE, file.content_type)];
            Ok((StatusCode::OK, content_type, file.bytes.into_owned()).into_response())
        }
        Ok(None) | Err(_) => Err(Refusal::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_route_once() {
        let value: Value = serde_json::from_str(&DOCUMENT).unwrap();
        assert_eq!(value["openapi"], "3.1.0");
        let paths = value["paths"].as_object().unwrap();
        for path in ["/", "/predict", "/v2/models/{model}/infer", "/tokenize"] {
            assert!(paths.contains_key(path), "{path}");
        }
        let mut ids: Vec<&str> = paths
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert!(paths["/"].get("post").is_some() && paths["/"].get("get").is_some());
    }
}
