//! A classifier read from a model directory, to evaluate the export rather than the trained network.
//!
//! This is the training network in evaluation mode, for directories that [`super::run()`] writes. The server
//! has its own, faster engines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::error::TrainError;
use super::network::{Input, Network};
use super::recipe::Shape;
use super::vocabulary::{PAD, encode, read};
use intentd_base::input;
use intentd_model::{BERT, TensorKey};

/// Texts in one forward pass of evaluation.
const BATCH: usize = 64;

/// The part of `config.json` that the network needs.
#[derive(Debug, Deserialize)]
#[serde(rename = "Config")]
struct NetworkConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    id2label: BTreeMap<String, String>,
}

/// A classifier loaded from a directory.
#[derive(Debug)]
pub struct Classifier {
    network: Network,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    length_max: usize,
}

impl Classifier {
    /// Reads `config.json`, `tokenizer.json` and `model.safetensors`.
    ///
    /// # Errors
    /// When a file is missing or does not fit the others.
    pub fn read(directory: &Path) -> Result<Self, TrainError> {
        let path = directory.join("config.json");
        let wrong = |path: &PathBuf, reason: String| TrainError::Model {
            path: path.clone(),
            reason,
        };
        let text = input::read_text(&path, input::CHECKPOINT).map_err(TrainError::io(&path))?;
        let config: NetworkConfig =
            serde_json::from_str(&text).map_err(|e| wrong(&path, e.to_string()))?;
        let labels = (0..config.id2label.len())
            .map(|id| config.id2label.get(&id.to_string()).cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| wrong(&path, "the ids in id2label are not 0, 1, 2, …".to_owned()))?;
        let tokenizer = read(&directory.join("tokenizer.json"))?;
        let path = directory.join("model.safetensors");
        input::open(&path).map_err(TrainError::io(&path))?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let shape = Shape {
            layers: config.num_hidden_layers,
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            intermediate: config.intermediate_size,
            max_positions: config.max_position_embeddings,
            vocabulary: config.vocab_size,
            dropout: 0.0,
        };
        let mut find = |key: TensorKey, dims: &[usize]| -> candle_core::Result<Tensor> {
            let name = BERT.tensor_name(key).unwrap_or_default();
            match tensors.get(&name) {
                Some(tensor) if tensor.dims() == dims => tensor.to_dtype(DType::F32),
                Some(tensor) => candle_core::bail!("{name} is {:?}, not {dims:?}", tensor.dims()),
                None => candle_core::bail!("{name} is missing"),
            }
        };
        let network = Network::build(&shape, config.vocab_size, labels.len(), &mut find)
            .map_err(|e| wrong(&path, e.to_string()))?;
        Ok(Self {
            network,
            tokenizer,
            labels,
            length_max: config.max_position_embeddings,
        })
    }

    /// Returns the most likely label of each text.
    ///
    /// # Errors
    /// When a text cannot be encoded or a tensor operation fails.
    pub fn classify(&self, texts: &[&str]) -> Result<Vec<String>, TrainError> {
        let ids = encode(&self.tokenizer, texts, self.length_max)?;
        let best = predict(&self.network, &ids)?;
        Ok(best
            .into_iter()
            .map(|label| self.labels[label].clone())
            .collect())
    }
}

/// Returns the id of the most likely label of each text of token ids, in order.
pub(crate) fn predict(network: &Network, texts: &[Vec<u32>]) -> Result<Vec<usize>, TrainError> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|index| texts[*index].len());
    let mut best = vec![0; texts.len()];
    for chunk in order.chunks(BATCH) {
        let ids: Vec<&[u32]> = chunk.iter().map(|index| texts[*index].as_slice()).collect();
        let logits = network.forward(&Input::pad(&ids, PAD)?, &mut None)?;
        let highest = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        for (index, label) in chunk.iter().zip(highest) {
            best[*index] = label as usize;
        }
    }
    Ok(best)
}
