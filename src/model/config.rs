//! `config.json`: the shape of a BERT classifier, checked value by value.
//!
//! Absent keys take the defaults of Hugging Face's `BertConfig`, as transformers itself does.

use serde_json::{Map, Value};

use super::{CheckpointError, Files};

/// The activation between the two feed-forward products (`hidden_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·Φ(x)` with the error function (`gelu`).
    Gelu,
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)` (`relu`).
    Relu,
}

/// How logits become scores (`problem_type`, as transformers' text classification pipeline
/// reads it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scoring {
    /// One label is right: scores sum to one.
    #[default]
    Softmax,
    /// Each label is right or wrong on its own.
    Sigmoid,
    /// A regression: the logits are the answer.
    Identity,
}

/// The checked content of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of a token's representation.
    pub hidden_size: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads a layer; divides `hidden_size`.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position embedding: no sequence is longer.
    pub max_positions: usize,
    /// Rows of the token type embedding: 2 where text pairs were trained.
    pub type_vocab_size: usize,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Activation of the feed-forward block.
    pub activation: Activation,
    /// `problem_type`, where the file names one.
    pub scoring: Option<Scoring>,
    /// `id2label`, where the file has one: `(id, label)` in no order.
    pub id2label: Option<Vec<(usize, String)>>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// The first key that is missing, of the wrong type, or describes a model that is not a
    /// BERT classifier.
    pub fn read(files: &Files) -> Result<Self, CheckpointError> {
        let path = files.path("config.json");
        let content = files.read("config.json")?.ok_or_else(|| {
            CheckpointError::missing(&path, "the model's configuration (Hugging Face layout)")
        })?;
        let value: Value = serde_json::from_slice(&content)
            .map_err(|error| CheckpointError::invalid(&path, "(file)", "JSON", error))?;
        let Value::Object(map) = value else {
            return Err(CheckpointError::invalid(
                &path,
                "(file)",
                "a JSON object",
                kind(&value),
            ));
        };
        Keys {
            path: &path,
            map: &map,
        }
        .config()
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }
}

/// The keys of one file, with errors that name them.
struct Keys<'a> {
    path: &'a str,
    map: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn config(&self) -> Result<ModelConfig, CheckpointError> {
        self.check_architecture()?;
        let config = ModelConfig {
            vocab_size: self.size("vocab_size", 30_522)?,
            hidden_size: self.size("hidden_size", 768)?,
            layers: self.layers()?,
            heads: self.size("num_attention_heads", 12)?,
            intermediate_size: self.size("intermediate_size", 3072)?,
            max_positions: self.positions()?,
            type_vocab_size: self.size("type_vocab_size", 2)?,
            layer_norm_eps: self.epsilon()?,
            activation: self.activation()?,
            scoring: self.scoring()?,
            id2label: self.id2label()?,
        };
        if !config.hidden_size.is_multiple_of(config.heads) {
            return Err(self.invalid(
                "num_attention_heads",
                format!("a divisor of hidden_size {}", config.hidden_size),
                config.heads,
            ));
        }
        Ok(config)
    }

    fn check_architecture(&self) -> Result<(), CheckpointError> {
        match self.map.get("model_type") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if name == "bert" => {}
            Some(other) => return Err(self.invalid("model_type", "\"bert\"", other)),
        }
        if let Some(Value::Array(names)) = self.map.get("architectures") {
            let usable = |v: &Value| v.as_str() == Some("BertForSequenceClassification");
            if !names.is_empty() && !names.iter().any(usable) {
                return Err(self.invalid(
                    "architectures",
                    "[\"BertForSequenceClassification\"]",
                    Value::Array(names.clone()),
                ));
            }
        }
        match self.map.get("position_embedding_type") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if name == "absolute" => {}
            Some(other) => {
                return Err(self.invalid("position_embedding_type", "\"absolute\"", other));
            }
        }
        match self.map.get("is_decoder") {
            Some(Value::Bool(true)) => Err(self.invalid("is_decoder", "false (an encoder)", true)),
            _ => Ok(()),
        }
    }

    /// A positive whole number that fits the memory of this age.
    fn size(&self, key: &str, default: usize) -> Result<usize, CheckpointError> {
        let value = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(default),
            Some(value) => value,
        };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=1 << 24).contains(&n) => Ok(n),
            _ => Err(self.invalid(key, "a whole number from 1 to 16777216", value)),
        }
    }

    /// Bounded on its own: each layer has sixteen tensors to look for.
    fn layers(&self) -> Result<usize, CheckpointError> {
        let key = "num_hidden_layers";
        match self.size(key, 12)? {
            layers @ 1..=1024 => Ok(layers),
            layers => Err(self.invalid(key, "a whole number from 1 to 1024", layers)),
        }
    }

    /// Bounded on its own: texts of that length are tokenized before the model is ready.
    fn positions(&self) -> Result<usize, CheckpointError> {
        let key = "max_position_embeddings";
        match self.size(key, 512)? {
            positions @ 1..=65_536 => Ok(positions),
            positions => Err(self.invalid(key, "a whole number from 1 to 65536", positions)),
        }
    }

    fn epsilon(&self) -> Result<f64, CheckpointError> {
        match self.map.get("layer_norm_eps") {
            None | Some(Value::Null) => Ok(1e-12),
            Some(value) => match value.as_f64() {
                Some(eps) if (0.0..1.0).contains(&eps) => Ok(eps),
                _ => Err(self.invalid("layer_norm_eps", "a number from 0 to 1", value)),
            },
        }
    }

    fn activation(&self) -> Result<Activation, CheckpointError> {
        let value = match self.map.get("hidden_act") {
            None | Some(Value::Null) => return Ok(Activation::Gelu),
            Some(value) => value,
        };
        match value.as_str() {
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("relu") => Ok(Activation::Relu),
            _ => Err(self.invalid(
                "hidden_act",
                "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\" or \"relu\"",
                value,
            )),
        }
    }

    fn scoring(&self) -> Result<Option<Scoring>, CheckpointError> {
        let value = match self.map.get("problem_type") {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        match value.as_str() {
            Some("single_label_classification") => Ok(Some(Scoring::Softmax)),
            Some("multi_label_classification") => Ok(Some(Scoring::Sigmoid)),
            Some("regression") => Ok(Some(Scoring::Identity)),
            _ => Err(self.invalid(
                "problem_type",
                "\"single_label_classification\", \"multi_label_classification\", \
                 \"regression\" or null",
                value,
            )),
        }
    }

    fn id2label(&self) -> Result<Option<Vec<(usize, String)>>, CheckpointError> {
        let map = match self.map.get("id2label") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(map)) => map,
            Some(other) => return Err(self.invalid("id2label", "an object", kind(other))),
        };
        let mut labels = Vec::with_capacity(map.len());
        for (id, label) in map {
            let key = format!("id2label[{id:?}]");
            let Ok(id) = id.parse::<usize>() else {
                return Err(self.invalid(&key, "a whole number as the key", id));
            };
            let Some(label) = label.as_str() else {
                return Err(self.invalid(&key, "a string", label));
            };
            labels.push((id, label.to_owned()));
        }
        Ok(Some(labels))
    }

    fn invalid(
        &self,
        key: &str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> CheckpointError {
        CheckpointError::invalid(self.path, key, expected, found)
    }
}

/// The JSON type of a value, for messages that must not print a whole document.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
