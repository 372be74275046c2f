//! Requests for inference as JSON, with or without binary data behind it. Messages never repeat a text.

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::super::request::identity_only;
use super::tensor::{elements, flatten};
use super::{INPUTS, Infer, Input, Output, Wanted, bytes_only, invalid, micros, too_many};
use crate::error::Refusal;
use crate::model::TooLong;

/// How many bytes of a body are JSON, where binary data follows.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// What a body asks for, and the request's id.
pub(in super::super) fn decode(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Infer, Option<String>), Refusal> {
    identity_only(headers)?;
    // What the body is does not depend on its type: Triton does not look at it either.
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
    let value = super::super::json::parse(json).map_err(|failure| {
        failure.refusal(|error| Refusal::Malformed(format!("the body is not JSON ({error})")))
    })?;
    let Value::Object(mut map) = value else {
        return Err(invalid("the JSON body is not an object"));
    };
    let id = match map.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err(invalid("\"id\" is not a string")),
    };
    let parameters = Parameters::of(&mut map)?;
    let inputs = inputs(&mut map, binary)?;
    let outputs = outputs(&mut map, &parameters)?;
    let too_long = match parameters.flag("truncate")? {
        Some(false) => TooLong::Refuse,
        _ => TooLong::Truncate,
    };
    let timeout = parameters.number("timeout")?;
    let infer = Infer::new(inputs, outputs, too_long)?;
    Ok((infer.within(micros(timeout)), id))
}

/// The parameters of a request, of an input, or of an output. Those that are not known pass.
struct Parameters(Map<String, Value>);

impl Parameters {
    fn of(map: &mut Map<String, Value>) -> Result<Self, Refusal> {
        match map.remove("parameters") {
            None | Some(Value::Null) => Ok(Self(Map::new())),
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

fn inputs(map: &mut Map<String, Value>, mut binary: &[u8]) -> Result<Vec<Input>, Refusal> {
    let Some(Value::Array(items)) = map.remove("inputs") else {
        return Err(invalid("\"inputs\" is not an array of tensors"));
    };
    if items.len() > INPUTS.len() {
        return Err(too_many());
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
        bytes_only(&string("datatype")?)?;
        let shape = item.remove("shape").and_then(|shape| {
            let sizes = shape.as_array()?.iter();
            sizes.map(Value::as_i64).collect::<Option<Vec<i64>>>()
        });
        let shape = shape.ok_or_else(|| invalid("an input has no \"shape\" of whole numbers"))?;
        let size = Parameters::of(&mut item)?.number("binary_data_size")?;
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
        inputs.push(Input {
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

fn outputs(map: &mut Map<String, Value>, all: &Parameters) -> Result<Vec<Wanted>, Refusal> {
    let is_binary = all.flag("binary_data_output")?.unwrap_or(false);
    let items = match map.remove("outputs") {
        None | Some(Value::Null) => return Ok(Wanted::all(is_binary)),
        Some(Value::Array(items)) if items.is_empty() => return Ok(Wanted::all(is_binary)),
        Some(Value::Array(items)) if items.len() > Output::ALL.len() => return Err(too_many()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(invalid("\"outputs\" is not an array")),
    };
    let wanted = |item: Value| {
        let Value::Object(mut item) = item else {
            return Err(invalid("an output is not an object"));
        };
        let parameters = Parameters::of(&mut item)?;
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_binary = parameters.flag("binary_data")?.unwrap_or(is_binary);
        Wanted::new(name, parameters.number("classification")?, is_binary)
    };
    items.into_iter().map(wanted).collect()
}
