//! The Open Inference Protocol, version 2 (kserve/open-inference-protocol), as KServe and Triton speak it:
//! what both of its forms, [`rest`] and [`grpc`], share.
//!
//! The model takes one tensor of texts, or two for pairs, and gives four tensors with a row a text. Of
//! Triton's extensions: binary tensor data, classification, and the parameter `timeout`.

pub(super) mod grpc;
mod json;
pub(super) mod rest;
mod tensor;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;

pub(super) use self::json::decode;
use self::tensor::{Data, Tensor};
use super::Shared;
use super::body::Held;
use crate::error::Refusal;
use crate::metrics::Surface;
use crate::model::{Labels, Text, TooLong};
use crate::serving::{Predictions, Request};

/// There is one version of a model here.
const VERSION: &str = "1";

/// What the server says it is.
const SERVER: &str = "intentd";

/// Triton's names for the extensions that are spoken here.
const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "classification"];

const PLATFORM: &str = "intentd_bert";

/// Names of the inputs: the texts, and the second text of each pair.
const INPUTS: [&str; 2] = ["text", "text_pair"];

/// The outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// The best class.
    Label,
    /// Its score.
    Score,
    /// The score of each class.
    Scores,
    /// The logit of each class.
    Logits,
}

impl Output {
    const ALL: [Self; 4] = [Self::Label, Self::Score, Self::Scores, Self::Logits];

    fn name(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Score => "score",
            Self::Scores => "scores",
            Self::Logits => "logits",
        }
    }

    fn named(name: &str) -> Result<Self, Refusal> {
        let found = Self::ALL.into_iter().find(|output| output.name() == name);
        found.ok_or_else(|| {
            invalid("an output is none of \"label\", \"score\", \"scores\" and \"logits\"")
        })
    }
}

/// An output that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    output: Output,
    /// So many of the best classes as strings, in place of numbers.
    classes: Option<usize>,
    /// Whether it is to come as binary data.
    is_binary: bool,
}

impl Wanted {
    /// All outputs, for those who name none.
    fn all(is_binary: bool) -> Vec<Self> {
        let wanted = |output| Self {
            output,
            classes: None,
            is_binary,
        };
        Output::ALL.map(wanted).into()
    }

    /// An output with its parameter `classification`.
    fn new(name: &str, classes: Option<i64>, is_binary: bool) -> Result<Self, Refusal> {
        let output = Output::named(name)?;
        let classes = classes.map(|classes| {
            let classes = usize::try_from(classes).ok().filter(|classes| *classes > 0);
            let has_classes = matches!(output, Output::Scores | Output::Logits);
            classes.filter(|_| has_classes).ok_or_else(|| {
                invalid(
                    "\"classification\" is not a number above 0, or stands at another output than \
                     \"scores\" or \"logits\"",
                )
            })
        });
        Ok(Self {
            output,
            classes: classes.transpose()?,
            is_binary,
        })
    }
}

/// What a request wants.
#[derive(Debug)]
pub struct Infer {
    /// The texts.
    pub request: Request,
    outputs: Vec<Wanted>,
    /// Time after which nobody wants the answer.
    pub timeout: Option<Duration>,
}

/// Refuses an input of another type than ours, whose data is not even looked at.
fn bytes_only(datatype: &str) -> Result<(), Refusal> {
    if datatype == "BYTES" {
        return Ok(());
    }
    Err(invalid("an input is not of datatype \"BYTES\""))
}

fn invalid(what: &str) -> Refusal {
    Refusal::Invalid(what.to_owned())
}

/// What is said of more tensors than there can be.
fn too_many() -> Refusal {
    invalid("there are at most two inputs, and each of the four outputs once")
}

/// One input: its name, what it says of its shape, and its elements.
struct Input {
    name: String,
    shape: Vec<i64>,
    elements: Vec<String>,
}

impl Infer {
    /// The outputs that are wanted: the name of each, so many of the best classes in place of numbers, and
    /// whether it is to come as binary data.
    pub fn outputs(&self) -> impl Iterator<Item = (&'static str, Option<usize>, bool)> {
        let outputs = self.outputs.iter();
        outputs.map(|wanted| (wanted.output.name(), wanted.classes, wanted.is_binary))
    }

    fn new(inputs: Vec<Input>, outputs: Vec<Wanted>, too_long: TooLong) -> Result<Self, Refusal> {
        let invalid = |what| Err(invalid(what));
        let named = |place: usize| outputs[place].output;
        if (0..outputs.len()).any(|place| (0..place).any(|other| named(other) == named(place))) {
            return invalid("an output is named twice");
        }
        for input in &inputs {
            let volume = input.shape.iter().try_fold(1_i64, |volume, size| {
                volume.checked_mul(*size).filter(|_| *size >= 0)
            });
            if input.shape.is_empty() || volume != i64::try_from(input.elements.len()).ok() {
                return invalid("an input's shape does not have as many elements as its data");
            }
        }
        let mut inputs = inputs;
        let second = inputs.iter().position(|input| input.name == INPUTS[1]);
        let second = second.filter(|_| inputs.len() > 1);
        let second = second.map(|place| inputs.remove(place).elements);
        // A client that knows of one input may call it as it likes.
        let (Some(Input { elements, .. }), None) = (inputs.pop(), inputs.pop()) else {
            return invalid("expected one input, \"text\", and for pairs another, \"text_pair\"");
        };
        let texts = match second {
            None => elements.into_iter().map(Text::Single).collect(),
            Some(second) if second.len() == elements.len() => {
                let pairs = elements.into_iter().zip(second);
                pairs
                    .map(|(first, second)| Text::Pair(first, second))
                    .collect()
            }
            Some(_) => return invalid("\"text\" and \"text_pair\" are not of one length"),
        };
        let request = Request { texts, too_long };
        Ok(Self {
            request,
            outputs,
            timeout: None,
        })
    }

    fn within(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Triton's parameter `timeout`: microseconds, of which zero is no limit.
fn micros(timeout: Option<i64>) -> Option<Duration> {
    let micros = timeout.and_then(|micros| u64::try_from(micros).ok());
    micros
        .filter(|micros| *micros > 0)
        .map(Duration::from_micros)
}

/// The output tensors of predictions.
fn tensors(predictions: &Predictions, wanted: &[Wanted]) -> Vec<Tensor> {
    let Predictions { labels, items, .. } = predictions;
    let rows = items.len();
    let best = || items.iter().map(|item| labels.best(&item.logits));
    let tensor = |wanted: &Wanted| {
        let values = |logits: &[f32]| match wanted.output {
            Output::Logits => logits.to_vec(),
            _ => labels.in_order(logits),
        };
        let (width, data) = match (wanted.output, wanted.classes) {
            (Output::Label, _) => {
                let labels = best().map(|best| best.label.to_string());
                (None, Data::Bytes(labels.collect()))
            }
            (Output::Score, _) => (None, Data::Fp32(best().map(|best| best.score).collect())),
            (_, Some(classes)) => {
                let classes = classes.min(labels.len());
                let rows = items.iter();
                let rows = rows.flat_map(|item| ranked(labels, &values(&item.logits), classes));
                (Some(classes), Data::Bytes(rows.collect()))
            }
            (_, None) => {
                let rows = items.iter().flat_map(|item| values(&item.logits));
                (Some(labels.len()), Data::Fp32(rows.collect()))
            }
        };
        Tensor {
            name: wanted.output.name(),
            shape: [Some(rows), width].into_iter().flatten().collect(),
            data,
            is_binary: wanted.is_binary,
        }
    };
    wanted.iter().map(tensor).collect()
}

/// The best classes as `value:index:label`.
fn ranked(labels: &Labels, values: &[f32], classes: usize) -> Vec<String> {
    let mut rows: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names: Vec<&str> = labels.names().collect();
    let rows = rows.into_iter().take(classes);
    rows.map(|(row, value)| format!("{value:.6}:{row}:{}", names[row]))
        .collect()
}

/// A tensor that the model takes or gives, as its metadata has it; -1 for any size.
struct Signature {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
}

/// Inputs and outputs of a model with so many classes.
fn signatures(classes: usize) -> (Vec<Signature>, Vec<Signature>) {
    let signature = |name, datatype, shape: &[i64]| Signature {
        name,
        datatype,
        shape: shape.to_vec(),
    };
    let classes = i64::try_from(classes).unwrap_or(i64::MAX);
    let outputs = Output::ALL.map(|output| match output {
        Output::Label => signature(output.name(), "BYTES", &[-1]),
        Output::Score => signature(output.name(), "FP32", &[-1]),
        Output::Scores | Output::Logits => signature(output.name(), "FP32", &[-1, classes]),
    });
    // The second input is optional, which the protocol cannot say.
    (vec![signature(INPUTS[0], "BYTES", &[-1])], outputs.into())
}

impl Shared {
    /// Whether there is such a model; any version when that is empty.
    fn find_model(&self, name: &str, version: &str) -> Result<(), Refusal> {
        if name == &*self.model_name && (version.is_empty() || version == VERSION) {
            return Ok(());
        }
        let name = self.model_name.to_string();
        Err(Refusal::UnknownModel { name })
    }

    /// Classes of the model in use.
    fn classes(&self) -> Result<usize, Refusal> {
        let model = self.classifier.model().ok_or(Refusal::Loading)?;
        Ok(model.labels.len())
    }

    /// Answers what `decode` makes of a body for which `place` is the right one.
    async fn infer<T>(
        &self,
        surface: Surface,
        (headers, body): (&HeaderMap, Body),
        place: Result<(), Refusal>,
        decode: impl FnOnce(Bytes) -> Result<(Infer, T), Refusal>,
    ) -> Result<(Vec<Tensor>, T, Held), Refusal> {
        let mut offer = self.offer(surface, headers)?;
        let received = match place {
            Ok(()) => self.receive(&mut offer, headers, body, decode).await,
            Err(refusal) => Err(refusal),
        };
        let ((infer, rest), held) = match received {
            Ok(received) => received,
            Err(refusal) => return Err(offer.refuse(refusal)),
        };
        if let Some(timeout) = infer.timeout {
            offer.limit_time(timeout);
        }
        let predictions = offer.classify(infer.request).await?;
        Ok((tensors(&predictions, &infer.outputs), rest, held))
    }
}
