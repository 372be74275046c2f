//! Random but fully deterministic Hugging Face `BertForSequenceClassification` directories.
//!
//! Takes a [`Spec`], writes `config.json`, the weights and the tokenizer files. The same spec gives
//! the same bytes on every machine, so that the golden files under `tests/golden` can be made from
//! a directory once, in Python, and compared with a directory written afresh in every test run.
//! [`catalog`] names the checkpoints which have golden files.

pub(crate) mod catalog;
mod vocabulary;
mod weights;

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Sizes of the network.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) positions: usize,
}

/// The type the weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

/// How the files name the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// `bert.embeddings.LayerNorm.weight`, as every current library writes it.
    Current,
    /// `embeddings.LayerNorm.gamma`: the names of the first TensorFlow conversions, without the
    /// `bert.` prefix and with the `position_ids` buffer that files before 2022 carry.
    Old,
}

/// The files that hold the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenizerFiles {
    /// `tokenizer.json` next to `tokenizer_config.json`.
    Json,
    /// `vocab.txt` next to `tokenizer_config.json`, which then decides how text is normalised.
    Vocab,
}

/// Where the special tokens stand in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpecialTokens {
    /// `[PAD]` is 0, `[UNK]` is 100: the order of Google's vocabularies.
    Google,
    /// The first five ids.
    First,
    /// `[PAD]` is 0, the others are the last ids.
    Last,
}

/// Everything that decides how text becomes ids.
#[derive(Debug, Clone)]
pub(crate) struct TokenizerSpec {
    pub(crate) files: TokenizerFiles,
    pub(crate) special_tokens: SpecialTokens,
    pub(crate) lower_case: bool,
    pub(crate) strip_accents: Option<bool>,
    pub(crate) split_chinese: bool,
}

/// One checkpoint: the input of [`write`].
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    pub(crate) dtype: Dtype,
    /// 1 writes `model.safetensors`, more write numbered files and their index.
    pub(crate) shards: usize,
    pub(crate) names: Names,
    pub(crate) tokenizer: TokenizerSpec,
    pub(crate) hidden_act: &'static str,
    pub(crate) layer_norm_eps: f64,
    pub(crate) labels: Vec<&'static str>,
    pub(crate) problem_type: Option<&'static str>,
}

/// Writes the checkpoint into `directory`, which is created when it is missing.
pub(crate) fn write(spec: &Spec, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let vocabulary = vocabulary::pieces(&spec.tokenizer);
    vocabulary::write(
        &spec.tokenizer,
        spec.shape.positions,
        &vocabulary,
        directory,
    )?;
    write_json(
        &directory.join("config.json"),
        &config(spec, vocabulary.len()),
    )?;
    weights::write(spec, vocabulary.len(), directory)
}

fn config(spec: &Spec, vocabulary_size: usize) -> Value {
    let id2label: Map<String, Value> = spec
        .labels
        .iter()
        .enumerate()
        .map(|(id, label)| (id.to_string(), json!(label)))
        .collect();
    let label2id: Map<String, Value> = spec
        .labels
        .iter()
        .enumerate()
        .map(|(id, label)| (label.to_string(), json!(id)))
        .collect();
    let mut config = json!({
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": vocabulary_size,
        "hidden_size": spec.shape.hidden,
        "num_hidden_layers": spec.shape.layers,
        "num_attention_heads": spec.shape.heads,
        "intermediate_size": spec.shape.intermediate,
        "max_position_embeddings": spec.shape.positions,
        "type_vocab_size": weights::TYPE_VOCABULARY_SIZE,
        "hidden_act": spec.hidden_act,
        "layer_norm_eps": spec.layer_norm_eps,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "id2label": id2label,
        "label2id": label2id,
        "torch_dtype": match spec.dtype {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
        },
    });
    if let Some(problem_type) = spec.problem_type {
        config["problem_type"] = json!(problem_type);
    }
    config
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    fs::write(path, format!("{value:#}\n"))
}
