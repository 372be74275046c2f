//! The Open Inference Protocol, version 2 (kserve/open-inference-protocol), as KServe and Triton speak it.
//!
//! The model takes one tensor of texts, or two for pairs, and gives four tensors with one row for each text. Of
//! Triton's extensions it has binary tensor data, classification, and the parameter `timeout`. The protocol over REST
//! is here, with all that [`grpc`](super::grpc) shares with it.

mod classify;
mod json;
mod outputs;
mod protocol;
mod request;
mod rest;
mod tensor;

pub(super) use self::classify::{Inferred, check_model, class_count, infer};
pub use self::json::decode_inference;
pub(super) use self::protocol::{
    EXTENSIONS, INPUTS, ModelSignature, OutputName, PLATFORM, SERVER, TensorSignature, VERSION,
    check_datatype, invalid, timeout_of_micros, too_many_tensors,
};
pub use self::request::Inference;
pub(super) use self::request::{RequestedOutput, TextInput};
pub(super) use self::rest::SURFACE;
pub(super) use self::tensor::{Tensor, TensorData, elements, text};
