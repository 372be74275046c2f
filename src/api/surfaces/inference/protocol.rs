//! The names of the protocol: the model's inputs and outputs, and what the server says of itself.

use std::time::Duration;

use crate::error::Refusal;

/// The only version of the model.
pub(crate) const VERSION: &str = "1";

/// The server's name.
pub(crate) const SERVER: &str = "intentd";

/// Triton's names for the extensions supported here.
pub(crate) const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "classification"];

/// The model's platform.
pub(crate) const PLATFORM: &str = "intentd_bert";

/// The names of the inputs: the texts, and the second text of each pair.
pub(crate) const INPUTS: [&str; 2] = ["text", "text_pair"];

/// The outputs of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputName {
    /// The best class.
    Label,
    /// The score of the best class.
    Score,
    /// The score of each class.
    Scores,
    /// The logit of each class.
    Logits,
}

impl OutputName {
    pub(crate) const ALL: [Self; 4] = [Self::Label, Self::Score, Self::Scores, Self::Logits];

    /// The name in messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Score => "score",
            Self::Scores => "scores",
            Self::Logits => "logits",
        }
    }

    /// The output of this name.
    pub(super) fn parse(name: &str) -> Result<Self, Refusal> {
        let found = Self::ALL.into_iter().find(|output| output.as_str() == name);
        found.ok_or_else(|| {
            invalid("an output is none of \"label\", \"score\", \"scores\" and \"logits\"")
        })
    }
}

/// A tensor that the model takes or gives, as in its metadata; a size of -1 is any size.
pub(crate) struct TensorSignature {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    pub(crate) shape: Vec<i64>,
}

/// The inputs and outputs of the model.
pub(crate) struct ModelSignature {
    pub(crate) inputs: Vec<TensorSignature>,
    pub(crate) outputs: Vec<TensorSignature>,
}

impl ModelSignature {
    /// The signature of a model with this number of classes.
    pub(crate) fn new(classes: usize) -> Self {
        let signature = |name, datatype, shape: &[i64]| TensorSignature {
            name,
            datatype,
            shape: shape.to_vec(),
        };
        let classes = i64::try_from(classes).unwrap_or(i64::MAX);
        let outputs = OutputName::ALL.map(|output| match output {
            OutputName::Label => signature(output.as_str(), "BYTES", &[-1]),
            OutputName::Score => signature(output.as_str(), "FP32", &[-1]),
            OutputName::Scores | OutputName::Logits => {
                signature(output.as_str(), "FP32", &[-1, classes])
            }
        });
        Self {
            // The second input is optional, which the protocol cannot express.
            inputs: vec![signature(INPUTS[0], "BYTES", &[-1])],
            outputs: outputs.into(),
        }
    }
}

/// Refuses an input of any datatype but BYTES, before its data is read.
pub(crate) fn check_datatype(datatype: &str) -> Result<(), Refusal> {
    if datatype == "BYTES" {
        return Ok(());
    }
    Err(invalid("an input is not of datatype \"BYTES\""))
}

/// The refusal of a request that breaks the protocol.
pub(crate) fn invalid(what: &str) -> Refusal {
    Refusal::Invalid(what.to_owned())
}

/// The refusal of more tensors than the model has.
pub(crate) fn too_many_tensors() -> Refusal {
    invalid("there are at most two inputs, and each of the four outputs once")
}

/// Triton's parameter `timeout`, in microseconds; 0 is no limit.
pub(crate) fn timeout_of_micros(timeout: Option<i64>) -> Option<Duration> {
    let micros = timeout.and_then(|micros| u64::try_from(micros).ok());
    micros
        .filter(|micros| *micros > 0)
        .map(Duration::from_micros)
}
