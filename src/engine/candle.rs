//! The plain path: candle-transformers' BERT, on the CPU or (feature `candle-cuda`) on the GPU.
//!
//! A batch is padded to its longest sequence and masked, as candle's own users do it. In f32 only:
//! candle-transformers 0.11 makes its mask by multiplying `1 - mask` with the type's smallest
//! number, which f16 and bf16 round to -∞, and 0 · -∞ is NaN for every score that counts.

use std::collections::{HashMap, VecDeque};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};

use super::{Engine, EngineError, LoadError, Logits, RaggedBatch};
use crate::model::{Activation, Checkpoint, CheckpointError, ModelConfig, expected_tensors};

/// candle-transformers' BERT with the classification head.
pub(super) struct Bert {
    bert: BertModel,
    pooler: Linear,
    classifier: Linear,
    device: Device,
    pub(super) labels: usize,
}

impl std::fmt::Debug for Bert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bert")
            .field("device", &self.device)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

impl Bert {
    /// Copies the weights onto `device`, as f32.
    pub(super) fn load(checkpoint: &Checkpoint, device: Device) -> Result<Self, CheckpointError> {
        let (config, labels) = (&checkpoint.config, checkpoint.labels.len());
        let h = config.hidden_size;
        let mut shapes: Vec<(String, Vec<usize>)> = expected_tensors(config).collect();
        shapes.push(("classifier.weight".to_owned(), vec![labels, h]));
        shapes.push(("classifier.bias".to_owned(), vec![labels]));
        let candle = |error: candle_core::Error| {
            CheckpointError::invalid(&checkpoint.origin, "(tensors)", "a BERT classifier", error)
        };
        let mut tensors = HashMap::new();
        for (name, shape) in shapes {
            let values = checkpoint.weights.f32(&name, &shape)?;
            let tensor = Tensor::from_vec(values, shape, &device).map_err(candle)?;
            tensors.insert(name, tensor);
        }
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &device);
        Ok(Self {
            pooler: candle_nn::linear(h, h, vb.pp("pooler.dense")).map_err(candle)?,
            classifier: candle_nn::linear(h, labels, vb.pp("classifier")).map_err(candle)?,
            bert: BertModel::load(vb, &candle_config(config)).map_err(candle)?,
            device,
            labels,
        })
    }

    fn is_on_device(&self) -> bool {
        !self.device.is_cpu()
    }

    /// Logits of the sequences `batch`, padded to the longest, row after row.
    pub(super) fn logits(&self, batch: &[(&[u32], &[u32])]) -> candle_core::Result<Vec<f32>> {
        let width = batch.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
        let padded = |row: &dyn Fn(usize) -> Vec<u32>| {
            let mut values = Vec::with_capacity(batch.len() * width);
            for index in 0..batch.len() {
                values.extend(row(index));
                values.resize((index + 1) * width, 0);
            }
            Tensor::from_vec(values, (batch.len(), width), &self.device)
        };
        let ids = padded(&|index| batch[index].0.to_vec())?;
        let type_ids = padded(&|index| batch[index].1.to_vec())?;
        let mask = padded(&|index| vec![1; batch[index].0.len()])?;
        let hidden = self.bert.forward(&ids, &type_ids, Some(&mask))?;
        let cls = hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let pooled = self.pooler.forward(&cls)?.tanh()?;
        self.classifier.forward(&pooled)?.flatten_all()?.to_vec1()
    }
}

/// The plain path as an engine of its own.
#[derive(Debug)]
pub struct Candle {
    bert: Bert,
    description: String,
    done: VecDeque<Logits>,
}

impl Candle {
    /// On the CPU.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn cpu(checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        Self::load(checkpoint, Device::Cpu, "candle f32, cpu".to_owned())
    }

    /// On the CUDA device number `ordinal`.
    ///
    /// # Errors
    /// When a tensor cannot be read, or when candle cannot use the device.
    #[cfg(feature = "candle-cuda")]
    pub fn cuda(checkpoint: &Checkpoint, ordinal: usize) -> Result<Self, LoadError> {
        // A stream of its own: candle's default is a different stream on every thread.
        let device = Device::new_cuda_with_stream(ordinal).map_err(|error| {
            intentd_kernels::DeviceError::Unavailable(format!(
                "candle cannot use CUDA device {ordinal}: {error}"
            ))
        })?;
        Self::load(checkpoint, device, format!("candle f32, cuda:{ordinal}"))
    }

    fn load(
        checkpoint: &Checkpoint,
        device: Device,
        description: String,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            bert: Bert::load(checkpoint, device)?,
            description,
            done: VecDeque::new(),
        })
    }
}

impl Engine for Candle {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn is_on_device(&self) -> bool {
        self.bert.is_on_device()
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let sequences: Vec<(&[u32], &[u32])> = batch
            .ranges()
            .map(|range| (&batch.ids()[range.clone()], &batch.type_ids()[range]))
            .collect();
        let values = self.bert.logits(&sequences);
        let values = values.map_err(|error| engine_error(&error.to_string(), batch.tokens()))?;
        self.done.push_back(Logits::new(values, self.bert.labels));
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.done
            .pop_front()
            .ok_or_else(|| EngineError::Batch("nothing was submitted".to_owned()))
    }
}

/// Names of the errors after which a CUDA context is of no use (the CUDA driver API lists them).
const STICKY: [&str; 9] = [
    "ILLEGAL_ADDRESS",
    "LAUNCH_FAILED",
    "LAUNCH_TIMEOUT",
    "ILLEGAL_INSTRUCTION",
    "MISALIGNED_ADDRESS",
    "HARDWARE_STACK_ERROR",
    "ECC_UNCORRECTABLE",
    "CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_UNKNOWN",
];

/// What a text of candle's means: CUDA's errors come as text only.
fn engine_error(text: &str, tokens: usize) -> EngineError {
    if text.contains("OUT_OF_MEMORY") {
        EngineError::OutOfMemory { tokens }
    } else if STICKY.iter().any(|name| text.contains(name)) {
        EngineError::Lost(text.to_owned())
    } else {
        EngineError::Batch(text.to_owned())
    }
}

/// Our configuration in candle's words.
fn candle_config(config: &ModelConfig) -> Config {
    Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        intermediate_size: config.intermediate_size,
        hidden_act: match config.activation {
            Activation::Gelu => HiddenAct::Gelu,
            Activation::GeluTanh => HiddenAct::GeluApproximate,
            Activation::Relu => HiddenAct::Relu,
        },
        hidden_dropout_prob: 0.0,
        max_position_embeddings: config.max_positions,
        type_vocab_size: config.type_vocab_size,
        initializer_range: 0.02,
        layer_norm_eps: config.layer_norm_eps,
        pad_token_id: 0,
        position_embedding_type: PositionEmbeddingType::Absolute,
        use_cache: false,
        classifier_dropout: None,
        // A name here would make candle look for `bert.`-prefixed tensors after a failure.
        model_type: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_cuda_are_told_by_their_names() {
        let error = |text: &str| engine_error(text, 7);
        // As cudarc's `DriverError` prints itself.
        let text = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        assert_eq!(error(text), EngineError::OutOfMemory { tokens: 7 });
        let text = "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access\")";
        assert!(matches!(error(text), EngineError::Lost(_)));
        assert!(matches!(error("shape mismatch"), EngineError::Batch(_)));
    }
}
