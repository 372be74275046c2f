//! The Open Inference Protocol over gRPC, with the standard health and reflection services.
//!
//! A message is read under the same bounds as any other body before tonic sees it ([`guard`]). Load reports
//! are in the trailers (gRPC proposal A51), and so is when to try again (A6).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response as HttpResponse;
use axum::routing::post_service;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Frame;
use tonic::{Request, Response, Status};

use self::proto::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use self::proto::infer_parameter::ParameterChoice;
use self::proto::model_infer_response::InferOutputTensor;
use self::proto::model_metadata_response::TensorMetadata;
use super::super::{Shared, grpc_health};
use super::tensor::{Data, Tensor, elements, text};
use super::{
    EXTENSIONS, Infer, Input, PLATFORM, SERVER, Signature, VERSION, Wanted, bytes_only, micros,
    signatures,
};
use crate::error::Refusal;
use crate::metrics::Surface;
use crate::model::TooLong;

/// Messages and service of `proto/inference`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto has the words"
)]
pub mod proto {
    tonic::include_proto!("inference");
}

/// For the reflection service.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// The name that clients check the health of.
pub(in super::super) const SERVICE: &str = "inference.GRPCInferenceService";

/// The load report in the trailers.
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

type Answer<T> = Result<Response<T>, Status>;

/// The service.
pub(in super::super) struct Inference(Shared);

/// Routes of the services, whose state is `shared`.
pub(in super::super) fn routes(shared: &Shared) -> Router<Shared> {
    let inference = GrpcInferenceServiceServer::new(Inference(shared.clone()))
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let layer = axum::middleware::from_fn_with_state(shared.clone(), guard);
    let inference = Router::new()
        .route(
            "/inference.GRPCInferenceService/{method}",
            post_service(inference),
        )
        .layer(layer);
    inference
        .merge(grpc_health::routes(shared))
        .merge(reflection(shared))
}

/// What the services are, for clients that have no .proto file.
fn reflection(shared: &Shared) -> Router<Shared> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Router::new();
    // They are made by this build from files that a test asks for.
    if let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) {
        routes = routes
            .route(
                "/grpc.reflection.v1.ServerReflection/{method}",
                post_service(v1),
            )
            .route(
                "/grpc.reflection.v1alpha.ServerReflection/{method}",
                post_service(v1alpha),
            );
    }
    routes.layer(axum::middleware::from_fn_with_state(
        shared.clone(),
        until_closing,
    ))
}

/// Ends an answer when the ports close: a client may keep its side of a stream open for ever.
async fn until_closing(
    State(shared): State<Shared>,
    request: HttpRequest,
    next: Next,
) -> HttpResponse {
    let response = next.run(request).await;
    response.map(|body| {
        let closing = Box::pin(shared.closing());
        let frames = stream::unfold(Some((BodyStream::new(body), closing)), async |open| {
            let (mut frames, mut closing) = open?;
            tokio::select! {
                frame = frames.next() => Some((frame?, Some((frames, closing)))),
                () = &mut closing => {
                    let status = Status::unavailable("this replica is about to end");
                    let mut trailers = HeaderMap::new();
                    // A code and a short text are always headers.
                    let _ = status.add_header(&mut trailers);
                    Some((Ok(Frame::trailers(trailers)), None))
                }
            }
        });
        Body::new(StreamBody::new(frames))
    })
}

/// Reads a message within the bounds of bodies, and adds the load report to the answer.
async fn guard(State(shared): State<Shared>, request: HttpRequest, next: Next) -> HttpResponse {
    let (parts, body) = request.into_parts();
    let headers = parts.headers.clone();
    let deadline = shared.deadline(&headers);
    let response = match shared.body.read(&headers, body, deadline).await {
        Ok((body, held)) => {
            let request = HttpRequest::from_parts(parts, Body::from(body));
            held.carry(next.run(request).await)
        }
        Err(refusal) => {
            // It has come, so it counts.
            let refusal = match shared.offer(Surface::Grpc, &headers) {
                Ok(offer) => offer.refuse(refusal),
                Err(earlier) => earlier,
            };
            Status::from(refusal).into_http()
        }
    };
    let response = shared.name(Surface::Grpc, response);
    // Who may not ask is told nothing.
    let is_stranger = shared.authorize(&headers).is_err();
    match shared.trailer(&headers).filter(|_| !is_stranger) {
        Some(report) => with_trailer(response, report),
        None => response,
    }
}

/// Adds a trailer; a header where the answer is nothing but its trailers.
fn with_trailer(mut response: HttpResponse, value: axum::http::HeaderValue) -> HttpResponse {
    if response.headers().contains_key("grpc-status") {
        response.headers_mut().insert(REPORT, value);
        return response;
    }
    response.map(|body| {
        let body = body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.insert(REPORT, value.clone());
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        });
        Body::new(body)
    })
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let mut status = match refusal.status() {
            401 => Self::unauthenticated(message),
            403 => Self::permission_denied(message),
            404 => Self::not_found(message),
            408 | 504 => Self::deadline_exceeded(message),
            409 => Self::failed_precondition(message),
            413 => Self::out_of_range(message),
            429 => Self::resource_exhausted(message),
            503 => Self::unavailable(message),
            500 => Self::internal(message),
            _ => Self::invalid_argument(message),
        };
        if let Some(wait) = refusal.retry_after() {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            status
                .metadata_mut()
                .insert("grpc-retry-pushback-ms", millis.into());
        }
        status
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Answer<proto::ServerReadyResponse> {
        let ready = self.0.is_ready();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        let asked = request.into_inner();
        self.0.find_model(&asked.name, &asked.version)?;
        let ready = self.0.is_ready();
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        let asked = request.into_inner();
        self.0.find_model(&asked.name, &asked.version)?;
        let metadata = |signatures: Vec<Signature>| {
            let metadata = |signature: Signature| TensorMetadata {
                name: signature.name.to_owned(),
                datatype: signature.datatype.to_owned(),
                shape: signature.shape,
            };
            signatures.into_iter().map(metadata).collect()
        };
        let (inputs, outputs) = signatures(self.0.classes()?);
        Ok(Response::new(proto::ModelMetadataResponse {
            name: self.0.model_name.to_string(),
            versions: vec![VERSION.to_owned()],
            platform: PLATFORM.to_owned(),
            inputs: metadata(inputs),
            outputs: metadata(outputs),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Answer<proto::ModelInferResponse> {
        let (metadata, _, message) = request.into_parts();
        let headers: HeaderMap = metadata.into_headers();
        let decode = async |_| {
            self.0
                .find_model(&message.model_name, &message.model_version)?;
            let (id, raw) = (message.id.clone(), !message.raw_input_contents.is_empty());
            Ok((decode(message)?, (id, raw)))
        };
        let (tensors, (id, raw)) = self.0.infer(Surface::Grpc, &headers, decode).await?;
        Ok(Response::new(encode(&self.0.model_name, id, raw, tensors)))
    }
}

/// The answer, in the form in which the request came.
fn encode(
    name: &Arc<str>,
    id: String,
    raw: bool,
    tensors: Vec<Tensor>,
) -> proto::ModelInferResponse {
    let mut raw_output_contents = Vec::new();
    let output = |tensor: Tensor| {
        let datatype = tensor.data.datatype().to_owned();
        let contents = if raw {
            raw_output_contents.push(tensor.data.raw());
            None
        } else {
            let mut contents = proto::InferTensorContents::default();
            match tensor.data {
                Data::Bytes(elements) => {
                    contents.bytes_contents =
                        elements.into_iter().map(String::into_bytes).collect();
                }
                Data::Fp32(elements) => contents.fp32_contents = elements,
            }
            Some(contents)
        };
        // What is in memory is far shorter than that.
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        InferOutputTensor {
            name: tensor.name.to_owned(),
            datatype,
            shape: tensor.shape.into_iter().map(size).collect(),
            parameters: HashMap::new(),
            contents,
        }
    };
    let outputs = tensors.into_iter().map(output).collect();
    proto::ModelInferResponse {
        model_name: name.to_string(),
        model_version: VERSION.to_owned(),
        id,
        parameters: HashMap::new(),
        outputs,
        raw_output_contents,
    }
}

fn invalid(what: &str) -> Refusal {
    Refusal::Invalid(what.to_owned())
}

fn decode(message: proto::ModelInferRequest) -> Result<Infer, Refusal> {
    let raw = message.raw_input_contents;
    if !raw.is_empty() && raw.len() != message.inputs.len() {
        return Err(invalid(
            "\"raw_input_contents\" has not one element for each input",
        ));
    }
    let mut raw = raw.into_iter();
    let mut inputs = Vec::new();
    for input in message.inputs {
        bytes_only(&input.datatype)?;
        let contents = input.contents.unwrap_or_default().bytes_contents;
        let elements = match raw.next() {
            Some(_) if !contents.is_empty() => {
                return Err(invalid("an input has both contents and raw_input_contents"));
            }
            Some(raw) => elements(&raw)?,
            None => contents.into_iter().map(text).collect::<Result<_, _>>()?,
        };
        inputs.push(Input {
            name: input.name,
            shape: input.shape,
            elements,
        });
    }
    let parameters = message.parameters;
    let mut outputs = Vec::new();
    for output in message.outputs {
        let classes = number(&output.parameters, "classification")?;
        outputs.push(Wanted::new(&output.name, classes, false)?);
    }
    if outputs.is_empty() {
        outputs = Wanted::all(false);
    }
    let too_long = match choice(&parameters, "truncate") {
        None | Some(ParameterChoice::BoolParam(true)) => TooLong::Truncate,
        Some(ParameterChoice::BoolParam(false)) => TooLong::Refuse,
        Some(_) => return Err(invalid("the parameter \"truncate\" is not true or false")),
    };
    let timeout = number(&parameters, "timeout")?;
    Ok(Infer::new(inputs, outputs, too_long)?.within(micros(timeout)))
}

type Parameters = HashMap<String, proto::InferParameter>;

fn choice<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a ParameterChoice> {
    parameters.get(name)?.parameter_choice.as_ref()
}

fn number(parameters: &Parameters, name: &str) -> Result<Option<i64>, Refusal> {
    match choice(parameters, name) {
        None => Ok(None),
        Some(ParameterChoice::Int64Param(number)) => Ok(Some(*number)),
        Some(ParameterChoice::Uint64Param(number)) => Ok(i64::try_from(*number).ok()),
        Some(_) => Err(invalid(&format!(
            "the parameter \"{name}\" is not a whole number"
        ))),
    }
}
