//! The Open Inference Protocol: JSON with and without binary data, and messages of gRPC.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use intentd::api::inference_proto::infer_parameter::ParameterChoice;
use intentd::api::inference_proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use intentd::api::inference_proto::{InferParameter, InferTensorContents, ModelInferRequest};
use intentd::api::{self, Inference};
use intentd::model::{Text, TooLong};
use prost::Message as _;
use serde_json::{Value, json};

use super::{check_bytes, check_refusal, split};

const JSON_LENGTH: &str = "inference-header-content-length";

/// The requested outputs, in the form of [`Inference::outputs`].
type Outputs = Vec<(&'static str, Option<usize>, bool)>;

/// The first line is the header with the length of the JSON, empty for none, or `|` if the JSON ends at the
/// separator. The rest is the body.
pub fn inference_rest(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let (kind, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let (json, binary) = match kind {
        b"|" => split(body),
        _ => (body, &[][..]),
    };
    let body = [json, binary].concat();
    let length = match kind {
        b"" => None,
        b"|" => Some(HeaderValue::from(json.len())),
        kind => match HeaderValue::from_bytes(kind) {
            Ok(value) => Some(value),
            Err(_) => return,
        },
    };
    let headers = length.map(|length| (JSON_LENGTH.parse().expect("a name"), length));
    let headers = HeaderMap::from_iter(headers);
    match api::decode_inference(&headers, &body) {
        Ok((infer, id)) => {
            let texts = check_infer(&infer, id.as_deref().unwrap_or_default(), body.len());
            if kind == b"|" || kind == b"" {
                let value: Value = serde_json::from_slice(json).expect("it has been read");
                let inputs = value["inputs"].as_array().expect("it has been read").iter();
                for input in inputs {
                    let sizes = input["shape"].as_array().expect("it has been read").iter();
                    let volume: Option<i64> = sizes.map(Value::as_i64).product();
                    assert_eq!(volume, i64::try_from(texts).ok());
                }
            }
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

/// `m` and a message, or another letter and a body, which should be a message after its length.
pub fn inference_grpc(data: &[u8]) {
    let [kind, data @ ..] = data else {
        return;
    };
    let body = match kind {
        b'm' => framed(data),
        _ => Bytes::copy_from_slice(data),
    };
    match api::decode_inference_message(&body) {
        Ok((infer, id)) => {
            let texts = check_infer(&infer, &id, body.len());
            let message = ModelInferRequest::decode(&body[5..]).expect("it has been read");
            for input in message.inputs {
                assert_eq!(input.shape.iter().product::<i64>() as usize, texts);
            }
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

/// A message with gRPC's frame.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a small message");
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

/// Checks a decoded request, and that it decodes to the same from every other form. Returns the number of its
/// texts.
fn check_infer(infer: &Inference, id: &str, bytes: usize) -> usize {
    let texts = &infer.request.texts;
    check_bytes(texts, bytes);
    assert!(id.len() <= bytes);
    let is_pair = |text: &Text| matches!(text, Text::Pair(..));
    assert!(texts.iter().all(is_pair) || !texts.iter().any(is_pair));
    assert!(infer.timeout.is_none_or(|timeout| !timeout.is_zero()));
    let outputs: Outputs = infer.outputs().collect();
    assert!((1..=4).contains(&outputs.len()));
    for (place, (name, classes, _)) in outputs.iter().enumerate() {
        assert!(outputs[..place].iter().all(|(other, ..)| other != name));
        assert!(classes.is_none_or(|classes| classes > 0 && matches!(*name, "scores" | "logits")));
    }
    let inputs = inputs(texts);
    for is_raw in [false, true] {
        let (headers, body) = as_json(infer, id, &inputs, is_raw);
        let (again, found) = api::decode_inference(&headers, &body).expect("a sound request");
        assert_eq!(found.as_deref(), Some(id));
        check_same(infer, &again, &outputs);
        let body = framed(&as_message(infer, id, &inputs, is_raw).encode_to_vec());
        let (again, found) = api::decode_inference_message(&body).expect("a sound message");
        assert_eq!(found, id);
        // In gRPC, binary outputs are requested by sending binary inputs.
        let outputs = outputs
            .iter()
            .map(|(name, classes, _)| (*name, *classes, false));
        check_same(infer, &again, &outputs.collect::<Outputs>());
    }
    texts.len()
}

fn check_same(infer: &Inference, again: &Inference, outputs: &Outputs) {
    assert_eq!(again.request.texts, infer.request.texts);
    assert_eq!(again.request.too_long, infer.request.too_long);
    assert_eq!(again.timeout, infer.timeout);
    assert_eq!(again.outputs().collect::<Outputs>(), *outputs);
}

/// The input tensors for texts: names and elements.
fn inputs(texts: &[Text]) -> Vec<(&'static str, Vec<&str>)> {
    let first = texts.iter().map(|text| match text {
        Text::Single(text) | Text::Pair(text, _) => text.as_str(),
    });
    let second = texts.iter().filter_map(|text| match text {
        Text::Single(_) => None,
        Text::Pair(_, text) => Some(text.as_str()),
    });
    let (first, second): (_, Vec<&str>) = (first.collect(), second.collect());
    let second = (!second.is_empty()).then_some(("text_pair", second));
    [("text", first)].into_iter().chain(second).collect()
}

/// BYTES elements in binary form.
fn raw(elements: &[&str]) -> Vec<u8> {
    let element = |text: &&str| {
        let length = u32::try_from(text.len()).expect("a short text");
        [&length.to_le_bytes(), text.as_bytes()].concat()
    };
    elements.iter().flat_map(element).collect()
}

fn micros(infer: &Inference) -> Option<i64> {
    let micros = infer.timeout?.as_micros();
    Some(i64::try_from(micros).expect("it came as such a number"))
}

fn as_json(
    infer: &Inference,
    id: &str,
    inputs: &[(&str, Vec<&str>)],
    is_binary: bool,
) -> (HeaderMap, Vec<u8>) {
    let mut behind = Vec::new();
    let input = |(name, elements): &(&str, Vec<&str>)| {
        let mut input = json!({"name": name, "datatype": "BYTES", "shape": [1, elements.len()]});
        if is_binary {
            let raw = raw(elements);
            input["parameters"] = json!({"binary_data_size": raw.len()});
            behind.extend(raw);
        } else {
            input["data"] = json!([elements]);
        }
        input
    };
    let inputs: Vec<Value> = inputs.iter().map(input).collect();
    let output = |(name, classes, is_binary): (&str, Option<usize>, bool)| {
        let mut parameters = json!({"binary_data": is_binary});
        if let Some(classes) = classes {
            parameters["classification"] = classes.into();
        }
        json!({"name": name, "parameters": parameters})
    };
    let outputs: Vec<Value> = infer.outputs().map(output).collect();
    let mut parameters = json!({"truncate": infer.request.too_long == TooLong::Truncate});
    if let Some(micros) = micros(infer) {
        parameters["timeout"] = micros.into();
    }
    let request = json!({"id": id, "parameters": parameters, "inputs": inputs, "outputs": outputs});
    let mut body = request.to_string().into_bytes();
    let mut headers = HeaderMap::new();
    if is_binary {
        headers.insert(JSON_LENGTH, body.len().into());
        body.extend(behind);
    }
    (headers, body)
}

fn as_message(
    infer: &Inference,
    id: &str,
    inputs: &[(&str, Vec<&str>)],
    is_raw: bool,
) -> ModelInferRequest {
    let parameter = |name: &str, choice| {
        let parameter_choice = Some(choice);
        (name.to_owned(), InferParameter { parameter_choice })
    };
    let input = |(name, elements): &(&str, Vec<&str>)| {
        let contents = || InferTensorContents {
            bytes_contents: elements
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .collect(),
            ..InferTensorContents::default()
        };
        InferInputTensor {
            name: (*name).to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![i64::try_from(elements.len()).expect("a short list")],
            parameters: HashMap::new(),
            contents: (!is_raw).then(contents),
        }
    };
    let output = |(name, classes, _): (&str, Option<usize>, bool)| {
        let choice = |classes| ParameterChoice::Uint64Param(classes as u64);
        let classes = classes.map(|classes| parameter("classification", choice(classes)));
        InferRequestedOutputTensor {
            name: name.to_owned(),
            parameters: classes.into_iter().collect(),
        }
    };
    let truncate = infer.request.too_long == TooLong::Truncate;
    let truncate = parameter("truncate", ParameterChoice::BoolParam(truncate));
    let timeout = micros(infer).map(ParameterChoice::Int64Param);
    let timeout = timeout.map(|choice| parameter("timeout", choice));
    let raw = |(_, elements): &(&str, Vec<&str>)| raw(elements);
    ModelInferRequest {
        model_name: "intentd".to_owned(),
        model_version: String::new(),
        id: id.to_owned(),
        parameters: [truncate].into_iter().chain(timeout).collect(),
        inputs: inputs.iter().map(input).collect(),
        outputs: infer.outputs().map(output).collect(),
        raw_input_contents: inputs.iter().filter(|_| is_raw).map(raw).collect(),
    }
}
