//! The Open Inference Protocol over REST, with Triton's binary tensor data.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::classify::{Inferred, check_model, class_count, infer};
use super::json::{InferRequest, JSON_LENGTH, decode_inference};
use super::protocol::{EXTENSIONS, ModelSignature, PLATFORM, SERVER, TensorSignature, VERSION};
use super::tensor::{Tensor, TensorData};
use crate::api::fallback::{only_get, only_post};
use crate::api::refusal::{ErrorAnswer, Refusals};
use crate::api::state::ApiState;
use crate::api::surface::{Route, Surface};
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;

const MODEL: &str = "/v2/models/{model}";
const READY: &str = "/v2/models/{model}/ready";
const INFER: &str = "/v2/models/{model}/infer";

/// The surface.
pub(crate) static SURFACE: Surface = Surface {
    label: SurfaceLabel::new("rest"),
    title: "Open Inference Protocol (REST)",
    routes: &[
        Route::new("/v2", |_| get(server).fallback(only_get)),
        Route::new("/v2/health/live", |_| get(live).fallback(only_get)),
        Route::new("/v2/health/ready", |_| get(ready).fallback(only_get)),
        Route::new(MODEL, |_| get(model).fallback(only_get)),
        Route::new(READY, |_| get(model_ready).fallback(only_get)),
        Route::new(INFER, |_| post(post_infer).fallback(only_post)).traced(),
        Route::new("/v2/models/{model}/versions/{version}", |_| {
            get(model).fallback(only_get)
        })
        .alias_of(MODEL),
        Route::new("/v2/models/{model}/versions/{version}/ready", |_| {
            get(model_ready).fallback(only_get)
        })
        .alias_of(READY),
        Route::new("/v2/models/{model}/versions/{version}/infer", |_| {
            post(post_infer).fallback(only_post)
        })
        .traced()
        .alias_of(INFER),
    ],
    guard: None,
    openapi: Some(RestDocument::openapi),
    fuzz_targets: &["inference_rest"],
};

#[derive(OpenApi)]
#[openapi(
    paths(server, live, ready, model, model_ready, post_infer),
    tags((name = "inference", description = "The Open Inference Protocol, version 2"))
)]
struct RestDocument;

/// The model that an address names.
#[derive(Debug, Deserialize)]
struct ModelPath {
    model: String,
    #[serde(default)]
    version: String,
}

type ExtractedPath = Result<Path<ModelPath>, PathRejection>;

/// Checks the model that an address names.
fn check_path(state: &ApiState, path: ExtractedPath) -> Result<(), Refusal> {
    let Path(ModelPath { model, version }) =
        path.map_err(|_| Refusal::Malformed("the path is not UTF-8 once decoded".to_owned()))?;
    check_model(state, &model, &version)
}

/// What this server is.
#[derive(Debug, Serialize, ToSchema)]
struct ServerMetadata {
    #[schema(example = "intentd")]
    name: &'static str,
    version: &'static str,
    /// Extensions of Triton's that are spoken.
    extensions: [&'static str; 2],
}

/// What this server is.
#[utoipa::path(get, path = "/v2", tag = "inference", operation_id = "server_metadata",
    responses((status = 200, description = "What it is", body = ServerMetadata), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: SERVER,
        version: env!("CARGO_PKG_VERSION"),
        extensions: EXTENSIONS,
    })
}

/// Whether the process runs.
#[derive(Debug, Serialize, ToSchema)]
struct Live {
    live: bool,
}

/// Whether the process runs.
#[utoipa::path(get, path = "/v2/health/live", tag = "inference", operation_id = "server_live",
    responses((status = 200, description = "It does", body = Live), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether requests are answered.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// The model's name, when a model is asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    ready: bool,
}

/// Answers 200 if requests are answered, and 503 otherwise.
fn readiness(state: &ApiState, name: Option<String>) -> Response {
    let ready = state.classifier.is_ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Ready { name, ready })).into_response()
}

/// Whether requests are answered.
#[utoipa::path(get, path = "/v2/health/ready", tag = "inference", operation_id = "server_ready",
    responses((status = 200, description = "They are", body = Ready), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer), (status = 503, description = "They are not", body = Ready)))]
async fn ready(State(state): State<ApiState>) -> Response {
    readiness(&state, None)
}

/// Whether requests to a model are answered.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "inference", operation_id = "model_ready",
    params(("model" = String, Path, description = "The model's name (--model-name)", example = "intentd")),
    responses((status = 200, description = "They are", body = Ready), (status = 400, description = "The path is not UTF-8", body = ErrorAnswer), (status = 404, description = "No such model", body = ErrorAnswer), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer), (status = 503, description = "They are not", body = Ready)))]
async fn model_ready(
    State(state): State<ApiState>,
    path: ExtractedPath,
) -> Result<Response, Refusal> {
    check_path(&state, path)?;
    Ok(readiness(&state, Some(state.model_name.to_string())))
}

/// A tensor that the model takes or gives.
#[derive(Debug, Serialize, ToSchema)]
struct TensorMetadata {
    name: &'static str,
    #[schema(example = "BYTES")]
    datatype: &'static str,
    /// -1 for any size.
    shape: Vec<i64>,
}

impl From<TensorSignature> for TensorMetadata {
    fn from(signature: TensorSignature) -> Self {
        let TensorSignature {
            name,
            datatype,
            shape,
        } = signature;
        Self {
            name,
            datatype,
            shape,
        }
    }
}

/// What the model takes and gives.
#[derive(Debug, Serialize, ToSchema)]
struct ModelMetadata {
    name: String,
    versions: [&'static str; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// What a model takes and gives.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "inference", operation_id = "model_metadata",
    params(("model" = String, Path, description = "The model's name (--model-name)", example = "intentd")),
    responses((status = 200, description = "Inputs and outputs", body = ModelMetadata), (status = 400, description = "The path is not UTF-8", body = ErrorAnswer), (status = 404, description = "No such model", body = ErrorAnswer), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer),
        (status = 503, description = "The model is loading", body = ErrorAnswer)))]
async fn model(
    State(state): State<ApiState>,
    path: ExtractedPath,
) -> Result<Json<ModelMetadata>, Refusal> {
    check_path(&state, path)?;
    let ModelSignature { inputs, outputs } = ModelSignature::new(class_count(&state)?);
    Ok(Json(ModelMetadata {
        name: state.model_name.to_string(),
        versions: [VERSION],
        platform: PLATFORM,
        inputs: inputs.into_iter().map(TensorMetadata::from).collect(),
        outputs: outputs.into_iter().map(TensorMetadata::from).collect(),
    }))
}

/// An output tensor.
#[derive(Debug, Serialize, ToSchema)]
struct OutputTensor {
    name: &'static str,
    /// `BYTES` or `FP32`.
    datatype: &'static str,
    shape: Vec<usize>,
    /// Absent when the tensor is binary data behind the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements>,
    /// Present when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
}

/// Elements in row-major order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Elements {
    Bytes(Vec<String>),
    Fp32(Vec<f32>),
}

/// How long a tensor's binary data is.
#[derive(Debug, Serialize, ToSchema)]
struct BinarySize {
    binary_data_size: usize,
}

/// The answer to a request for inference.
#[derive(Debug, Serialize, ToSchema)]
struct InferResponse {
    model_name: String,
    model_version: &'static str,
    /// The request's, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<OutputTensor>,
}

/// Predictions as tensors.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "inference", operation_id = "infer",
    params(("model" = String, Path, description = "The model's name (--model-name)", example = "intentd")),
    request_body(content((InferRequest = "application/json"), (Vec<u8> = "application/octet-stream"))),
    responses((status = 200, description = "The outputs; binary data behind the JSON where that was asked for", content(
            (InferResponse = "application/json"), (Vec<u8> = "application/octet-stream"))),
        (status = 404, description = "No such model", body = ErrorAnswer), Refusals))]
async fn post_infer(
    State(state): State<ApiState>,
    path: ExtractedPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answered = answer(&state, path, &headers, body).await;
    state.finish(SURFACE.label, &headers, answered.into_response())
}

async fn answer(
    state: &ApiState,
    path: ExtractedPath,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let model = check_path(state, path);
    let decode = |body: Bytes| decode_inference(headers, &body);
    let Inferred {
        tensors,
        context: id,
        reservation,
    } = infer(state, SURFACE.label, headers, body, model, decode).await?;
    Ok(reservation.carry(encode(&state.model_name, id, tensors)))
}

fn encode(name: &str, id: Option<String>, tensors: Vec<Tensor>) -> Response {
    let mut binary = Vec::new();
    let output = |tensor: Tensor| {
        let datatype = tensor.data.datatype();
        let (data, parameters) = if tensor.is_binary {
            let raw = tensor.data.raw();
            binary.extend_from_slice(&raw);
            let binary_data_size = raw.len();
            (None, Some(BinarySize { binary_data_size }))
        } else {
            let elements = match tensor.data {
                TensorData::Bytes(elements) => Elements::Bytes(elements),
                TensorData::Fp32(elements) => Elements::Fp32(elements),
            };
            (Some(elements), None)
        };
        OutputTensor {
            name: tensor.name,
            datatype,
            shape: tensor.shape,
            data,
            parameters,
        }
    };
    let answer = InferResponse {
        model_name: name.to_owned(),
        model_version: VERSION,
        id,
        outputs: tensors.into_iter().map(output).collect(),
    };
    let has_binary = answer.outputs.iter().any(|output| output.data.is_none());
    if !has_binary {
        return Json(answer).into_response();
    }
    // It has only strings and finite numbers, so it can be serialized.
    let mut body = serde_json::to_vec(&answer).unwrap_or_default();
    let length = HeaderValue::from(body.len());
    body.extend(binary);
    let content_type = HeaderValue::from_static("application/octet-stream");
    let headers = [(header::CONTENT_TYPE, content_type), (JSON_LENGTH, length)];
    (headers, Bytes::from(body)).into_response()
}
