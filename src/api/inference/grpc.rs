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
use super::super::body::Held;
use super::super::grpc::MESSAGE_MAX;
use super::super::{Shared, grpc};
use super::tensor::{Data, Tensor, elements, text};
use super::{
    EXTENSIONS, INPUTS, Infer, Input, Output, PLATFORM, SERVER, Signature, VERSION, Wanted,
    bytes_only, invalid, micros, signatures, too_many,
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
pub(in super::super) const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// The name that clients check the health of.
pub(in super::super) const SERVICE: &str = "inference.GRPCInferenceService";

type Answer<T> = Result<Response<T>, Status>;

/// All of the service but [`infer`].
pub(in super::super) struct Service(Shared);

/// The service but for predictions.
pub(in super::super) fn service(shared: &Shared) -> GrpcInferenceServiceServer<Service> {
    GrpcInferenceServiceServer::new(Service(shared.clone())).max_decoding_message_size(MESSAGE_MAX)
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
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
        let ready = self.0.classifier.is_ready();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        let asked = request.into_inner();
        self.0.find_model(&asked.name, &asked.version)?;
        let ready = self.0.classifier.is_ready();
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

    /// A route of its own goes before this one.
    async fn model_infer(
        &self,
        _: Request<proto::ModelInferRequest>,
    ) -> Answer<proto::ModelInferResponse> {
        Err(Status::unimplemented(
            "predictions are answered by another route",
        ))
    }
}

/// `ModelInfer`: bounded, admitted and counted like requests of every other surface.
pub(in super::super) async fn infer(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> HttpResponse {
    let answered = answer_body(&shared, &headers, body).await;
    // Who may not ask is told nothing.
    let is_stranger = matches!(answered, Err(Refusal::Unauthorized));
    let report = shared.trailer(&headers).filter(|_| !is_stranger);
    let response = match answered {
        Ok((message, held)) => held.carry(grpc::answer(&message, report)),
        Err(refusal) => grpc::refuse(refusal, report),
    };
    shared.name(Surface::Grpc, response)
}

async fn answer_body(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<(proto::ModelInferResponse, Held), Refusal> {
    let decode = |body: Bytes| {
        let message = read(&body)?;
        shared.find_model(&message.model_name, &message.model_version)?;
        let (id, raw) = (message.id.clone(), !message.raw_input_contents.is_empty());
        Ok((decode(message)?, (id, raw)))
    };
    let infer = shared.infer(Surface::Grpc, (headers, body), Ok(()), decode);
    let (tensors, (id, raw), held) = infer.await?;
    Ok((encode(&shared.model_name, id, raw, tensors), held))
}

/// The message in a body.
pub(in super::super) fn read(body: &Bytes) -> Result<proto::ModelInferRequest, Refusal> {
    let message = grpc::message(body)?;
    is_modest(&message)?;
    proto::ModelInferRequest::decode(message)
        .map_err(|_| Refusal::Malformed("the message is not a ModelInferRequest".to_owned()))
}

/// Refuses a message with more tensors than there can be, before each of them takes a hundred times the memory
/// of its bytes.
fn is_modest(mut message: &[u8]) -> Result<(), Refusal> {
    let malformed = |_| Refusal::Malformed("the message is not protobuf".to_owned());
    // Inputs, outputs and raw contents of ModelInferRequest.
    let mut counts = [(5, INPUTS.len()), (6, Output::ALL.len()), (7, INPUTS.len())];
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).map_err(malformed)?;
        for (field, left) in &mut counts {
            if *field == tag {
                *left = left.checked_sub(1).ok_or_else(too_many)?;
            }
        }
        let context = DecodeContext::default();
        skip_field(wire_type, tag, &mut message, context).map_err(malformed)?;
    }
    Ok(())
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

/// What a message asks for.
pub(in super::super) fn decode(message: proto::ModelInferRequest) -> Result<Infer, Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_not_more_tensors_than_names() {
        // Field 5 (inputs), empty.
        assert!(is_modest(b"\x2a\0\x2a\0").is_ok());
        let bomb = b"\x2a\0".repeat(1_000_000);
        assert_eq!(is_modest(&bomb).unwrap_err().status(), 422);
        assert_eq!(is_modest(&b"\x32\0".repeat(5)).unwrap_err().status(), 422);
        for broken in [&b"\x2a"[..], b"\x2a\xff\xff\xff\xff\x0f", b"\xff\xff"] {
            assert_eq!(is_modest(broken).unwrap_err().status(), 400);
        }
    }
}
