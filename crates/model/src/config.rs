//! `config.json`: the sizes and settings of a classifier, checked value by value.
//!
//! An absent key takes the default of the family's Hugging Face configuration class, as in transformers.

use serde_json::{Map, Value};

use super::architecture::{Activation, FAMILIES, Family, FirstPosition, SizeKey};
use super::error::CheckpointError;
use super::files::Files;
use super::python_json::{self, kind};

/// Bound on the number of layers: each has sixteen tensors to look up.
const LAYERS_MAX: usize = 1024;

/// Bound on the length of a sequence: loading tokenizes texts of that length before the model is ready.
const POSITIONS_MAX: usize = 65_536;

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
    /// Number of layers with weights of their own, at most `layers`. The others share theirs: see
    /// [`weights_of_layer`](Self::weights_of_layer).
    pub layer_groups: usize,
    /// Width of the embeddings. If it is not `hidden_size`, they are projected.
    pub embedding_size: usize,
    /// Attention heads of a layer. Divides `hidden_size`.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Length of the longest sequence: the rows of the position embedding from that of the first token on.
    pub max_positions: usize,
    /// Rows of the position embedding before that of the first token.
    pub first_position: usize,
    /// Rows of the token type embedding: 2 for models trained on text pairs.
    pub type_vocab_size: usize,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Activation of the feed-forward block.
    pub activation: Activation,
    /// `tokenizer_class`, if present.
    pub tokenizer_class: Option<String>,
    /// `problem_type`, if present.
    pub scoring: Option<Scoring>,
    /// `id2label`, if present and for as many labels as `num_labels`: `(id, label)` in no order.
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
        let map = python_json::read(files, "config.json")?.ok_or_else(|| {
            CheckpointError::missing(&path, "the model's configuration (Hugging Face layout)")
        })?;
        let family = family(&path, &map)?;
        Keys {
            path: &path,
            map: &map,
            family,
        }
        .config()
    }

    /// Whether the embeddings are projected to the hidden size.
    pub fn has_embedding_projection(&self) -> bool {
        let projection = self.family.keys.embedding_projection;
        projection.is_some_and(|projection| {
            projection.is_always || self.embedding_size != self.hidden_size
        })
    }

    /// The layer, of those with weights of their own, whose weights a layer has. For ALBERT, as in transformers.
    pub fn weights_of_layer(&self, layer: usize) -> usize {
        (layer as f64 / (self.layers as f64 / self.layer_groups as f64)) as usize
    }

    /// The padding token's id, if tokens of this id within a text have a position of their own.
    pub fn uncounted_id(&self) -> Option<usize> {
        self.first_position.checked_sub(1)
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
        self.check_supported()?;
        let keys = &self.family.keys;
        let layers = self.size_up_to(keys.layers, LAYERS_MAX)?;
        let hidden_size = self.size(keys.hidden_size)?;
        let (max_positions, first_position) = self.positions()?;
        let config = ModelConfig {
            family: self.family,
            vocab_size: self.size(keys.vocab_size)?,
            hidden_size,
            layers,
            layer_groups: match keys.layer_groups {
                Some(key) => self.size_up_to(key, layers)?,
                None => layers,
            },
            embedding_size: match keys.embedding_projection {
                Some(projection) => self.size(projection.size)?,
                None => hidden_size,
            },
            heads: self.size(keys.heads)?,
            intermediate_size: self.size(keys.intermediate_size)?,
            max_positions,
            first_position,
            type_vocab_size: match keys.type_vocab_size {
                Some(key) => self.size(key)?,
                None => 1,
            },
            layer_norm_eps: self.epsilon()?,
            activation: self.activation()?,
            tokenizer_class: match self.map.get("tokenizer_class") {
                None | Some(Value::Null) => None,
                Some(Value::String(name)) => Some(name.clone()),
                Some(other) => return Err(self.invalid("tokenizer_class", "a string", other)),
            },
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

    /// Refuses settings under which transformers computes something else.
    fn check_supported(&self) -> Result<(), CheckpointError> {
        for (key, expected, is_fine) in [
            (
                "position_embedding_type",
                "\"absolute\"",
                (|value| value == "absolute") as fn(&Value) -> bool,
            ),
            ("is_decoder", "false (an encoder)", |value| value == false),
            ("inner_group_num", "1", |value| value == 1),
            // transformers takes the family's tokenizer for it, whatever the folder names.
            ("model_name", "another name", |value| {
                value != "camembertv2-base"
            }),
            ("pruned_heads", "none", |value| {
                value.as_object().is_some_and(Map::is_empty)
            }),
            (
                "quantization_config",
                "none (weights as f32, f16 or bf16)",
                |_| false,
            ),
        ] {
            match self.map.get(key) {
                None | Some(Value::Null) => {}
                Some(value) if is_fine(value) => {}
                Some(Value::Object(_)) => return Err(self.invalid(key, expected, "an object")),
                Some(value) => return Err(self.invalid(key, expected, value)),
            }
        }
        Ok(())
    }

    /// Usable rows of the position embedding, and the rows before them.
    fn positions(&self) -> Result<(usize, usize), CheckpointError> {
        let key = self.family.keys.max_positions;
        let rows = self.size_up_to(key, POSITIONS_MAX)?;
        if self.family.first_position == FirstPosition::Zero {
            return Ok((rows, 0));
        }
        let padding = match self.map.get("pad_token_id") {
            None => 1,
            Some(value) => value
                .as_u64()
                .and_then(|id| usize::try_from(id).ok())
                .filter(|id| *id < 1 << 24)
                .ok_or_else(|| self.invalid("pad_token_id", "a token id", value))?,
        };
        match rows.checked_sub(padding + 1) {
            Some(usable) if usable > 0 => Ok((usable, padding + 1)),
            _ => {
                let expected = format!("more than pad_token_id {padding} + 1");
                Err(self.invalid(key.name, expected, rows))
            }
        }
    }

    /// A positive whole number of at most 2²⁴.
    fn size(&self, key: SizeKey) -> Result<usize, CheckpointError> {
        let present = |name: &str| self.map.get(name).filter(|value| !value.is_null());
        let synonym = key.synonym.and_then(present);
        let value = match (present(key.name), synonym) {
            (Some(value), Some(other)) if value != other => {
                let synonym = key.synonym.unwrap_or_default();
                let expected = format!("the same as {synonym}, which means the same, {other}");
                return Err(self.invalid(key.name, expected, value));
            }
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => return Ok(key.default),
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
        let Some(key) = self.family.keys.layer_norm_eps else {
            return Ok(1e-12);
        };
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(1e-12),
            Some(value) => match value.as_f64() {
                Some(eps) if (0.0..1.0).contains(&eps) => Ok(eps),
                _ => Err(self.invalid(key, "a number from 0 to 1", value)),
            },
        }
    }

    fn activation(&self) -> Result<Activation, CheckpointError> {
        let key = self.family.keys.activation;
        let value = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(self.family.keys.activation_default),
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
            match label {
                Value::String(label) => labels.push((id, label.clone())),
                Value::Number(label) => labels.push((id, label.to_string())),
                other => return Err(self.invalid(&key, "a string", kind(other))),
            }
        }
        // Names for another number of labels say nothing.
        let count = self.map.get("num_labels").and_then(Value::as_u64);
        let is_other = count.is_some_and(|count| count != labels.len() as u64);
        Ok((!is_other).then_some(labels))
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
