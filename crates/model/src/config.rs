//! `config.json`: the sizes and settings of a classifier, checked value by value.
//!
//! An absent key takes the default of the family's Hugging Face configuration class, as in transformers.

use serde_json::{Map, Value};

use super::architecture::{FAMILIES, Family, SizeKey};
use super::error::CheckpointError;
use super::files::Files;

/// Bound on the number of layers: each has sixteen tensors to look up.
const LAYERS_MAX: usize = 1024;

/// Bound on the length of a sequence: loading tokenizes texts of that length before the model is ready.
const POSITIONS_MAX: usize = 65_536;

/// The activation between the two feed-forward projections (`hidden_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·Φ(x)` with the error function (`gelu`).
    Gelu,
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)` (`relu`).
    Relu,
}

/// The function from logits to scores (`problem_type`, as transformers' text classification pipeline
/// reads it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scoring {
    /// Exactly one label applies: scores sum to one.
    #[default]
    Softmax,
    /// Each label applies or not, independent of the others.
    Sigmoid,
    /// A regression: the logits are the scores.
    Identity,
}

/// The checked content of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The encoder's family, from `model_type`.
    pub family: &'static Family,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of a token's vector.
    pub hidden_size: usize,
    /// Number of Transformer layers.
    pub layers: usize,
    /// Attention heads of a layer. Divides `hidden_size`.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position embedding, which is the length of the longest sequence.
    pub max_positions: usize,
    /// Rows of the token type embedding: 2 for models trained on text pairs.
    pub type_vocab_size: usize,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Activation of the feed-forward block.
    pub activation: Activation,
    /// `problem_type`, if present.
    pub scoring: Option<Scoring>,
    /// `id2label`, if present: `(id, label)` in no order.
    pub id2label: Option<Vec<(usize, String)>>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// The first key that is missing, has the wrong type, or describes a model that is not a
    /// classifier of a known family.
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
        let family = family(&path, &map)?;
        Keys {
            path: &path,
            map: &map,
            family,
        }
        .config()
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }
}

/// The family that `model_type` names.
fn family(path: &str, map: &Map<String, Value>) -> Result<&'static Family, CheckpointError> {
    let found = match map.get("model_type") {
        None | Some(Value::Null) => return Ok(FAMILIES[0]),
        Some(found) => found,
    };
    let named = |family: &&&Family| found.as_str() == Some(family.model_type);
    FAMILIES.iter().find(named).copied().ok_or_else(|| {
        let known: Vec<String> = FAMILIES
            .iter()
            .map(|family| format!("{:?}", family.model_type))
            .collect();
        CheckpointError::invalid(path, "model_type", known.join(" or "), found)
    })
}

/// The keys of one file. Errors name the file and the key.
struct Keys<'a> {
    path: &'a str,
    map: &'a Map<String, Value>,
    family: &'static Family,
}

impl Keys<'_> {
    fn config(&self) -> Result<ModelConfig, CheckpointError> {
        self.check_architecture()?;
        let keys = &self.family.keys;
        let config = ModelConfig {
            family: self.family,
            vocab_size: self.size(keys.vocab_size)?,
            hidden_size: self.size(keys.hidden_size)?,
            layers: self.size_up_to(keys.layers, LAYERS_MAX)?,
            heads: self.size(keys.heads)?,
            intermediate_size: self.size(keys.intermediate_size)?,
            max_positions: self.size_up_to(keys.max_positions, POSITIONS_MAX)?,
            type_vocab_size: match keys.type_vocab_size {
                Some(key) => self.size(key)?,
                None => 1,
            },
            layer_norm_eps: self.epsilon()?,
            activation: self.activation()?,
            scoring: self.scoring()?,
            id2label: self.id2label()?,
        };
        if !config.hidden_size.is_multiple_of(config.heads) {
            return Err(self.invalid(
                keys.heads.name,
                format!(
                    "a divisor of {} {}",
                    keys.hidden_size.name, config.hidden_size
                ),
                config.heads,
            ));
        }
        Ok(config)
    }

    fn check_architecture(&self) -> Result<(), CheckpointError> {
        if let Some(Value::Array(names)) = self.map.get("architectures") {
            let class = self.family.classifier_class;
            let usable = |v: &Value| v.as_str() == Some(class);
            if !names.is_empty() && !names.iter().any(usable) {
                return Err(self.invalid(
                    "architectures",
                    format!("[{class:?}]"),
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

    /// A positive whole number of at most 2²⁴.
    fn size(&self, key: SizeKey) -> Result<usize, CheckpointError> {
        let value = match self.map.get(key.name) {
            None | Some(Value::Null) => return Ok(key.default),
            Some(value) => value,
        };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=1 << 24).contains(&n) => Ok(n),
            _ => Err(self.invalid(key.name, "a whole number from 1 to 16777216", value)),
        }
    }

    fn size_up_to(&self, key: SizeKey, max: usize) -> Result<usize, CheckpointError> {
        match self.size(key)? {
            size if size <= max => Ok(size),
            size => {
                let expected = format!("a whole number from 1 to {max}");
                Err(self.invalid(key.name, expected, size))
            }
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
        let key = self.family.keys.activation;
        let value = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(Activation::Gelu),
            Some(value) => value,
        };
        match value.as_str() {
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("relu") => Ok(Activation::Relu),
            _ => Err(self.invalid(
                key,
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

/// The JSON type of a value, for messages that must not contain a whole document.
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
