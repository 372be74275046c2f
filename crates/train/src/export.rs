//! Writing a trained classifier as a Hugging Face model directory.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::error::TrainError;
use super::network::{EPSILON, INITIAL_DEVIATION, Network};
use super::operations::values;
use super::recipe::{Recipe, StoredType};
use super::vocabulary::SPECIAL_TOKENS;

/// Writes `config.json`, `tokenizer.json`, `tokenizer_config.json` and `model.safetensors`.
///
/// # Errors
/// When a file cannot be written or a weight has no value that can be stored.
pub(crate) fn write(
    output: &Path,
    recipe: &Recipe,
    labels: &[String],
    tokenizer: &Tokenizer,
    network: &Network,
) -> Result<(), TrainError> {
    // All conversions come before the first write, so that a failed export leaves an older model intact.
    let weights = weights(output, network, recipe.dtype)?;
    let text = tokenizer.to_string(true).map_err(TrainError::tokenizer)?;
    let vocabulary = tokenizer.get_vocab_size(true);
    file(output, "model.safetensors", &weights)?;
    file(output, "tokenizer.json", text.as_bytes())?;
    json_file(output, "tokenizer_config.json", &tokenizer_config(recipe))?;
    json_file(output, "config.json", &config(recipe, labels, vocabulary))
}

fn config(recipe: &Recipe, labels: &[String], vocabulary: usize) -> Value {
    let model = &recipe.model;
    let numbered = || labels.iter().enumerate();
    let id2label: serde_json::Map<String, Value> = numbered()
        .map(|(id, label)| (id.to_string(), json!(label)))
        .collect();
    let label2id: BTreeMap<&String, usize> = numbered().map(|(id, label)| (label, id)).collect();
    json!({
        "_name_or_path": recipe.name,
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "problem_type": "single_label_classification",
        "id2label": id2label,
        "label2id": label2id,
        "vocab_size": vocabulary,
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.intermediate,
        "max_position_embeddings": model.max_positions,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": model.dropout,
        "classifier_dropout": null,
        "initializer_range": f64::from((INITIAL_DEVIATION * 1e4).round()) / 1e4,
        "layer_norm_eps": EPSILON,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
        "torch_dtype": match recipe.dtype { StoredType::F32 => "float32", StoredType::F16 => "float16" },
    })
}

fn tokenizer_config(recipe: &Recipe) -> Value {
    let [pad, unknown, class, separator, mask] = SPECIAL_TOKENS;
    json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": true,
        "strip_accents": true,
        "tokenize_chinese_chars": true,
        "model_max_length": recipe.model.max_positions,
        "pad_token": pad,
        "unk_token": unknown,
        "cls_token": class,
        "sep_token": separator,
        "mask_token": mask,
    })
}

fn weights(output: &Path, network: &Network, dtype: StoredType) -> Result<Vec<u8>, TrainError> {
    let path = output.join("model.safetensors");
    let wrong = |reason: String| TrainError::Model {
        path: path.clone(),
        reason,
    };
    let mut tensors = Vec::new();
    for parameter in network.parameters() {
        let values = values(parameter.value.as_tensor())?;
        let (dtype, bytes): (_, Vec<u8>) = match dtype {
            StoredType::F32 => (
                Dtype::F32,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            StoredType::F16 => {
                let rounded = values.iter().map(|v| f16::from_f32(*v));
                (Dtype::F16, rounded.flat_map(f16::to_le_bytes).collect())
            }
        };
        let finite = values.iter().all(|v| match dtype {
            Dtype::F16 => f16::from_f32(*v).is_finite(),
            _ => v.is_finite(),
        });
        if !finite {
            return Err(wrong(format!(
                "{} does not fit the stored type",
                parameter.name
            )));
        }
        tensors.push((
            &parameter.name,
            dtype,
            parameter.value.dims().to_vec(),
            bytes,
        ));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    // Hugging Face readers ask which framework's layout the tensors have.
    let about = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(about)).map_err(|e| wrong(e.to_string()))
}

fn json_file(output: &Path, name: &str, value: &Value) -> Result<(), TrainError> {
    // A `Value` always serialises; its display form with `#` is the indented one.
    file(output, name, format!("{value:#}\n").as_bytes())
}

fn file(output: &Path, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
    let path = output.join(name);
    std::fs::write(&path, bytes).map_err(TrainError::io(&path))
}
