//! A decoded request for inference, whichever form it came in.

use std::time::Duration;

use super::protocol::{INPUTS, OutputName, invalid};
use crate::error::Refusal;
use crate::model::{Text, TooLong};
use crate::serving::Request;

/// An output that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestedOutput {
    pub(super) output: OutputName,
    /// The number of best classes to give as strings, in place of numbers.
    pub(super) classes: Option<usize>,
    /// Whether it is sent as binary data.
    pub(super) is_binary: bool,
}

impl RequestedOutput {
    /// All outputs, for a request that names none.
    pub(crate) fn all(is_binary: bool) -> Vec<Self> {
        let requested = |output| Self {
            output,
            classes: None,
            is_binary,
        };
        OutputName::ALL.map(requested).into()
    }

    /// An output with its parameter `classification`.
    pub(crate) fn new(name: &str, classes: Option<i64>, is_binary: bool) -> Result<Self, Refusal> {
        let output = OutputName::parse(name)?;
        let classes = classes.map(|classes| {
            let classes = usize::try_from(classes).ok().filter(|classes| *classes > 0);
            let has_classes = matches!(output, OutputName::Scores | OutputName::Logits);
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

/// An input tensor: its name, the shape that it declares, and its elements.
pub(crate) struct TextInput {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) elements: Vec<String>,
}

/// A decoded request for inference.
#[derive(Debug)]
pub struct Inference {
    /// The texts.
    pub request: Request,
    pub(super) outputs: Vec<RequestedOutput>,
    /// The time after which the client no longer waits for the answer.
    pub timeout: Option<Duration>,
}

impl Inference {
    /// The requested outputs: for each its name, the number of best classes to give in place of numbers, and whether
    /// it is sent as binary data.
    pub fn outputs(&self) -> impl Iterator<Item = (&'static str, Option<usize>, bool)> {
        let outputs = self.outputs.iter();
        outputs.map(|requested| {
            (
                requested.output.as_str(),
                requested.classes,
                requested.is_binary,
            )
        })
    }

    /// Checks and combines the parts of a request.
    pub(crate) fn new(
        mut inputs: Vec<TextInput>,
        outputs: Vec<RequestedOutput>,
        too_long: TooLong,
    ) -> Result<Self, Refusal> {
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
        let second = inputs.iter().position(|input| input.name == INPUTS[1]);
        let second = second.filter(|_| inputs.len() > 1);
        let second = second.map(|place| inputs.remove(place).elements);
        // A single input may have any name.
        let (Some(TextInput { elements, .. }), None) = (inputs.pop(), inputs.pop()) else {
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

    /// Sets the timeout.
    pub(crate) fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }
}
