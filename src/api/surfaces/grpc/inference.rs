//! The Open Inference Protocol over gRPC.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response as HttpResponse;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::{Request, Response, Status};

use self::proto::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use self::proto::infer_parameter::ParameterChoice;
use self::proto::model_infer_response::InferOutputTensor;
use self::proto::model_metadata_response::TensorMetadata;
use super::framing::{self, MESSAGE_MAX};
use crate::api::body::BodyReservation;
use crate::api::state::ApiState;
use crate::api::surfaces::inference::{
    self, EXTENSIONS, INPUTS, Inference, Inferred, ModelSignature, OutputName, PLATFORM,
    RequestedOutput, SERVER, Tensor, TensorData, TensorSignature, TextInput, VERSION,
    check_datatype, check_model, class_count, elements, invalid, text, timeout_of_micros,
    too_many_tensors,
};
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;
use crate::model::TooLong;

/// The surface of these requests in metrics and traces.
pub(super) const LABEL: SurfaceLabel = SurfaceLabel::new("grpc");

/// Messages and service of `proto/inference`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto has the documentation"
)]
pub mod proto {
    tonic::include_proto!("inference");
}

/// For the reflection service.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// The name that clients check the health of.
pub(super) const SERVICE: &str = "inference.GRPCInferenceService";

type GrpcResult<T> = Result<Response<T>, Status>;

/// The service but for predictions, which [`infer`] answers.
pub(super) struct InferenceService(ApiState);

/// The service but for predictions.
pub(super) fn service(state: &ApiState) -> GrpcInferenceServiceServer<InferenceService> {
    let service = InferenceService(state.clone());
    GrpcInferenceServiceServer::new(service).max_decoding_message_size(MESSAGE_MAX)
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> GrpcResult<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> GrpcResult<proto::ServerReadyResponse> {
        let ready = self.0.classifier.is_ready();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> GrpcResult<proto::ModelReadyResponse> {
        let asked = request.into_inner();
        check_model(&self.0, &asked.name, &asked.version)?;
        let ready = self.0.classifier.is_ready();
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> GrpcResult<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> GrpcResult<proto::ModelMetadataResponse> {
        let asked = request.into_inner();
        check_model(&self.0, &asked.name, &asked.version)?;
        let metadata = |signatures: Vec<TensorSignature>| {
            let metadata = |signature: TensorSignature| TensorMetadata {
                name: signature.name.to_owned(),
                datatype: signature.datatype.to_owned(),
                shape: signature.shape,
            };
            signatures.into_iter().map(metadata).collect()
        };
        let ModelSignature { inputs, outputs } = ModelSignature::new(class_count(&self.0)?);
        Ok(Response::new(proto::ModelMetadataResponse {
            name: self.0.model_name.to_string(),
            versions: vec![VERSION.to_owned()],
            platform: PLATFORM.to_owned(),
            inputs: metadata(inputs),
            outputs: metadata(outputs),
        }))
    }

    /// Unused: the route of [`infer`] takes precedence.
    async fn model_infer(
        &self,
        _: Request<proto::ModelInferRequest>,
    ) -> GrpcResult<proto::ModelInferResponse> {
        Err(Status::unimplemented(
            "predictions are answered by another route",
        ))
    }
}

/// `ModelInfer`: bounded, admitted and counted as on every other surface.
pub(super) async fn infer(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> HttpResponse {
    let answered = answer_body(&state, &headers, body).await;
    // A client without a key learns nothing about the load.
    let is_unauthorized = matches!(answered, Err(Refusal::Unauthorized));
    let report = state.load_reports.trailer(&headers);
    let report = report.filter(|_| !is_unauthorized);
    let response = match answered {
        Ok((message, reservation)) => reservation.carry(framing::answer(&message, report)),
        Err(refusal) => framing::refuse(refusal, report),
    };
    state.with_surface(LABEL, response)
}

async fn answer_body(
    state: &ApiState,
    headers: &HeaderMap,
    body: Body,
) -> Result<(proto::ModelInferResponse, BodyReservation), Refusal> {
    let decode = |body: Bytes| {
        let message = read(&body)?;
        check_model(state, &message.model_name, &message.model_version)?;
        let (id, raw) = (message.id.clone(), !message.raw_input_contents.is_empty());
        Ok((decode(message)?, (id, raw)))
    };
    let Inferred {
        tensors,
        context: (id, raw),
        reservation,
    } = inference::infer(state, LABEL, headers, body, Ok(()), decode).await?;
    Ok((encode(&state.model_name, id, raw, tensors), reservation))
}

/// Reads the message in a body.
fn read(body: &Bytes) -> Result<proto::ModelInferRequest, Refusal> {
    let message = framing::message(body)?;
    check_tensor_counts(&message)?;
    proto::ModelInferRequest::decode(message)
        .map_err(|_| Refusal::Malformed("the message is not a ModelInferRequest".to_owned()))
}

/// Refuses a message with more tensors than the model has, before decoding: a tensor takes a hundred times the memory
/// of its bytes.
fn check_tensor_counts(mut message: &[u8]) -> Result<(), Refusal> {
    let malformed = |_| Refusal::Malformed("the message is not protobuf".to_owned());
    // Inputs, outputs and raw contents of ModelInferRequest.
    let mut counts = [
        (5, INPUTS.len()),
        (6, OutputName::ALL.len()),
        (7, INPUTS.len()),
    ];
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).map_err(malformed)?;
        for (field, left) in &mut counts {
            if *field == tag {
                *left = left.checked_sub(1).ok_or_else(too_many_tensors)?;
            }
        }
        let context = DecodeContext::default();
        skip_field(wire_type, tag, &mut message, context).map_err(malformed)?;
    }
    Ok(())
}

/// Encodes the answer, in raw form if the request was raw.
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
                TensorData::Bytes(elements) => {
                    contents.bytes_contents =
                        elements.into_iter().map(String::into_bytes).collect();
                }
                TensorData::Fp32(elements) => contents.fp32_contents = elements,
            }
            Some(contents)
        };
        // Sizes in memory always fit.
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

/// Decodes the body of a call of `ModelInfer`, whichever model it names, and gives the request's id too.
///
/// # Errors
/// A body that is not exactly one uncompressed `ModelInferRequest`, or asks for something that does not exist; a
/// [`Refusal`] that never repeats a text.
pub fn decode_inference_message(body: &Bytes) -> Result<(Inference, String), Refusal> {
    let message = read(body)?;
    let id = message.id.clone();
    Ok((decode(message)?, id))
}

/// Decodes a message.
fn decode(message: proto::ModelInferRequest) -> Result<Inference, Refusal> {
    let raw = message.raw_input_contents;
    if !raw.is_empty() && raw.len() != message.inputs.len() {
        return Err(invalid(
            "\"raw_input_contents\" has not one element for each input",
        ));
    }
    let mut raw = raw.into_iter();
    let mut inputs = Vec::new();
    for input in message.inputs {
        check_datatype(&input.datatype)?;
        let contents = input.contents.unwrap_or_default().bytes_contents;
        let elements = match raw.next() {
            Some(_) if !contents.is_empty() => {
                return Err(invalid("an input has both contents and raw_input_contents"));
            }
            Some(raw) => elements(&raw)?,
            None => contents.into_iter().map(text).collect::<Result<_, _>>()?,
        };
        inputs.push(TextInput {
            name: input.name,
            shape: input.shape,
            elements,
        });
    }
    let parameters = message.parameters;
    let mut outputs = Vec::new();
    for output in message.outputs {
        let classes = number(&output.parameters, "classification")?;
        outputs.push(RequestedOutput::new(&output.name, classes, false)?);
    }
    if outputs.is_empty() {
        outputs = RequestedOutput::all(false);
    }
    let too_long = match choice(&parameters, "truncate") {
        None | Some(ParameterChoice::BoolParam(true)) => TooLong::Truncate,
        Some(ParameterChoice::BoolParam(false)) => TooLong::Refuse,
        Some(_) => return Err(invalid("the parameter \"truncate\" is not true or false")),
    };
    let timeout = number(&parameters, "timeout")?;
    let inference = Inference::new(inputs, outputs, too_long)?;
    Ok(inference.with_timeout(timeout_of_micros(timeout)))
}

type GrpcParameters = HashMap<String, proto::InferParameter>;

fn choice<'a>(parameters: &'a GrpcParameters, name: &str) -> Option<&'a ParameterChoice> {
    parameters.get(name)?.parameter_choice.as_ref()
}

fn number(parameters: &GrpcParameters, name: &str) -> Result<Option<i64>, Refusal> {
    match choice(parameters, name) {
        None => Ok(None),
        Some(ParameterChoice::Int64Param(number)) => Ok(Some(*number)),
        Some(ParameterChoice::Uint64Param(number)) => Ok(i64::try_from(*number).ok()),
        Some(_) => Err(invalid(&format!(
            "the parameter \"{name}\" is not a whole number"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tensors_is_limited() {
        // Field 5 (inputs), empty.
        assert!(check_tensor_counts(b"\x2a\0\x2a\0").is_ok());
        let bomb = b"\x2a\0".repeat(1_000_000);
        assert_eq!(check_tensor_counts(&bomb).unwrap_err().status(), 422);
        assert_eq!(
            check_tensor_counts(&b"\x32\0".repeat(5))
                .unwrap_err()
                .status(),
            422
        );
        for broken in [&b"\x2a"[..], b"\x2a\xff\xff\xff\xff\x0f", b"\xff\xff"] {
            assert_eq!(check_tensor_counts(broken).unwrap_err().status(), 400);
        }
    }
}
