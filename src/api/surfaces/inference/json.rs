//! Decodes requests for inference in JSON, with or without binary data after it. Error messages never repeat a text.

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::protocol::{
    INPUTS, OutputName, check_datatype, invalid, timeout_of_micros, too_many_tensors,
};
use super::request::{Inference, RequestedOutput, TextInput};
use super::tensor::{elements, flatten};
use crate::api::content::require_identity;
use crate::api::json;
use crate::error::Refusal;
use crate::model::TooLong;

/// A tensor of texts.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
pub(crate) struct InputTensor {
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
pub(crate) struct OutputRequest {
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
pub(crate) struct InferRequest {
    /// Comes back in the answer.
    id: Option<String>,
    inputs: Vec<InputTensor>,
    /// All when there is none.
    outputs: Option<Vec<OutputRequest>>,
    /// `truncate`, `timeout` in microseconds, `binary_data_output`.
    parameters: Option<Value>,
}

/// The length of the JSON in bytes, if binary data follows it.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Decodes the body of a `POST /v2/models/…/infer`, and gives the request's id too.
///
/// # Errors
/// A body that is compressed, is not JSON followed by the binary data that it names, or asks for something that does
/// not exist; a [`Refusal`] that never repeats a text.
pub fn decode_inference(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Inference, Option<String>), Refusal> {
    require_identity(headers)?;
    // As in Triton, the content type does not matter.
    let json_length = match headers.get(JSON_LENGTH) {
        None => Some(body.len()),
        Some(value) => value.to_str().ok().and_then(|value| value.parse().ok()),
    };
    let (json, binary) = json_length
        .and_then(|length| body.split_at_checked(length))
        .ok_or_else(|| {
            let what = "Inference-Header-Content-Length is not a length within the body";
            Refusal::Malformed(what.to_owned())
        })?;
    let value = json::parse(json).map_err(|error| {
        error.refusal(|error| Refusal::Malformed(format!("the body is not JSON ({error})")))
    })?;
    let Value::Object(mut map) = value else {
        return Err(invalid("the JSON body is not an object"));
    };
    let id = match map.remove("id") {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err(invalid("\"id\" is not a string")),
    };
    let parameters = JsonParameters::of(&mut map)?;
    let inputs = inputs(&mut map, binary)?;
    let outputs = outputs(&mut map, &parameters)?;
    let too_long = match parameters.flag("truncate")? {
        Some(false) => TooLong::Refuse,
        _ => TooLong::Truncate,
    };
    let timeout = parameters.number("timeout")?;
    let inference = Inference::new(inputs, outputs, too_long)?;
    Ok((inference.with_timeout(timeout_of_micros(timeout)), id))
}

/// The parameters of a request, of an input, or of an output. Unknown ones pass.
struct JsonParameters(Map<String, Value>);

impl JsonParameters {
    fn of(map: &mut Map<String, Value>) -> Result<Self, Refusal> {
        match map.remove("parameters") {
            None => Ok(Self(Map::new())),
            Some(Value::Object(parameters)) => Ok(Self(parameters)),
            Some(_) => Err(invalid("\"parameters\" is not an object")),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let found = self.0.get(name).map(|value| {
            let wrong = || invalid(&format!("the parameter \"{name}\" is not true or false"));
            value.as_bool().ok_or_else(wrong)
        });
        found.transpose()
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let found = self.0.get(name).map(|value| {
            let wrong = || invalid(&format!("the parameter \"{name}\" is not a whole number"));
            value.as_i64().ok_or_else(wrong)
        });
        found.transpose()
    }
}

fn inputs(map: &mut Map<String, Value>, mut binary: &[u8]) -> Result<Vec<TextInput>, Refusal> {
    let Some(Value::Array(items)) = map.remove("inputs") else {
        return Err(invalid("\"inputs\" is not an array of tensors"));
    };
    if items.len() > INPUTS.len() {
        return Err(too_many_tensors());
    }
    let mut inputs = Vec::new();
    for item in items {
        let Value::Object(mut item) = item else {
            return Err(invalid("an input is not an object"));
        };
        let mut string = |name: &str| match item.remove(name) {
            Some(Value::String(value)) => Ok(value),
            _ => Err(invalid(&format!("an input has no \"{name}\""))),
        };
        let name = string("name")?;
        check_datatype(&string("datatype")?)?;
        let shape = item.remove("shape").and_then(|shape| {
            let sizes = shape.as_array()?.iter();
            sizes.map(Value::as_i64).collect::<Option<Vec<i64>>>()
        });
        let shape = shape.ok_or_else(|| invalid("an input has no \"shape\" of whole numbers"))?;
        let size = JsonParameters::of(&mut item)?.number("binary_data_size")?;
        let found = match (item.remove("data"), size) {
            (Some(data), None) => {
                let mut found = Vec::new();
                flatten(data, &mut found)?;
                found
            }
            (None, Some(size)) => {
                let size = usize::try_from(size).ok();
                let split = size.and_then(|size| binary.split_at_checked(size));
                let (raw, rest) = split.ok_or_else(|| {
                    invalid("the \"binary_data_size\" of an input is more than there is")
                })?;
                binary = rest;
                elements(raw)?
            }
            _ => {
                let what = "an input has neither \"data\" nor \"binary_data_size\", or both";
                return Err(invalid(what));
            }
        };
        inputs.push(TextInput {
            name,
            shape,
            elements: found,
        });
    }
    if binary.is_empty() {
        Ok(inputs)
    } else {
        Err(invalid("there is more binary data than the inputs take"))
    }
}

fn outputs(
    map: &mut Map<String, Value>,
    all: &JsonParameters,
) -> Result<Vec<RequestedOutput>, Refusal> {
    let is_binary = all.flag("binary_data_output")?.unwrap_or(false);
    let items = match map.remove("outputs") {
        None => return Ok(RequestedOutput::all(is_binary)),
        Some(Value::Array(items)) if items.is_empty() => {
            return Ok(RequestedOutput::all(is_binary));
        }
        Some(Value::Array(items)) if items.len() > OutputName::ALL.len() => {
            return Err(too_many_tensors());
        }
        Some(Value::Array(items)) => items,
        Some(_) => return Err(invalid("\"outputs\" is not an array")),
    };
    let requested = |item: Value| {
        let Value::Object(mut item) = item else {
            return Err(invalid("an output is not an object"));
        };
        let parameters = JsonParameters::of(&mut item)?;
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_binary = parameters.flag("binary_data")?.unwrap_or(is_binary);
        RequestedOutput::new(name, parameters.number("classification")?, is_binary)
    };
    items.into_iter().map(requested).collect()
}
