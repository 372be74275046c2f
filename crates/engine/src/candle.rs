//! The plain path: candle-transformers' BERT layers, on the CPU or (feature `candle-cuda`) on the GPU.
//!
//! A batch is padded to its longest sequence and masked, as is usual with candle. In f32 only:
//! candle-transformers 0.11 computes its mask as `1 - mask` times the type's smallest
//! number, which f16 and bf16 round to -∞, and 0 · -∞ is NaN for every score that counts.

use std::collections::{HashMap, VecDeque};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder};
use candle_transformers::models::bert::{BertEncoder, Config, HiddenAct, PositionEmbeddingType};

use super::batch::{Logits, RaggedBatch};
use super::error::{EngineError, LoadError};
use super::interface::Engine;
use intentd_model::{
    Activation, BERT, Checkpoint, CheckpointError, ModelConfig, Role, TensorKey, Weights,
};

/// candle-transformers' BERT layers with the embeddings and the head of any family.
pub(super) struct CandleBert {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    /// To the hidden size. `None` if the embeddings have it.
    projection: Option<Linear>,
    encoder: BertEncoder,
    pooler: Linear,
    pooler_activation: Activation,
    classifier: Linear,
    device: Device,
    pub(super) labels: usize,
}

/// A sequence of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence<'a> {
    ids: &'a [u32],
    type_ids: &'a [u32],
}

impl<'a> Sequence<'a> {
    /// The sequences of a batch, in order.
    pub(super) fn all(batch: &'a RaggedBatch) -> impl Iterator<Item = Self> {
        batch.ranges().map(|range| Self {
            ids: &batch.ids()[range.clone()],
            type_ids: &batch.type_ids()[range],
        })
    }
}

/// Reads tensors of any family into candle's.
struct TensorReader<'a> {
    weights: &'a Weights,
    origin: &'a str,
    device: &'a Device,
}

impl TensorReader<'_> {
    /// The tensors of all layers by the names under which candle's BERT asks for them: those of BERT's checkpoints,
    /// without a prefix. Layers that share weights share tensors.
    fn by_candle_names(
        &self,
        config: &ModelConfig,
    ) -> Result<HashMap<String, Tensor>, CheckpointError> {
        let mut tensors = HashMap::new();
        for key in config.encoder_tensors().map(|(key, _)| key) {
            let Some(group) = key.role.layer() else {
                continue;
            };
            let tensor = self.read(key)?;
            for layer in (0..config.layers).filter(|layer| config.weights_of_layer(*layer) == group)
            {
                let name = BERT.canonical_name(key.in_layer(layer));
                tensors.extend(name.map(|name| (name, tensor.clone())));
            }
        }
        Ok(tensors)
    }

    fn table(&self, role: Role, width: usize) -> Result<Embedding, CheckpointError> {
        Ok(Embedding::new(self.read(role.weight())?, width))
    }

    fn linear(&self, role: Role) -> Result<Linear, CheckpointError> {
        let bias = self.read(role.bias())?;
        Ok(Linear::new(self.read(role.weight())?, Some(bias)))
    }

    fn read(&self, key: TensorKey) -> Result<Tensor, CheckpointError> {
        let values = self.weights.f32(key)?;
        let shape = self.weights.tensor(key).shape();
        Tensor::from_vec(values, shape, self.device).map_err(|error| self.invalid(&error))
    }

    fn invalid(&self, error: &candle_core::Error) -> CheckpointError {
        CheckpointError::invalid(self.origin, "(tensors)", "a BERT classifier", error)
    }
}

impl std::fmt::Debug for CandleBert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CandleBert")
            .field("device", &self.device)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

impl CandleBert {
    /// Copies the weights to `device`, as f32.
    pub(super) fn load(checkpoint: &Checkpoint, device: Device) -> Result<Self, CheckpointError> {
        let config = &checkpoint.config;
        let reader = TensorReader {
            weights: &checkpoint.weights,
            origin: &checkpoint.origin,
            device: &device,
        };
        let tensors = reader.by_candle_names(config)?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &device);
        let width = config.embedding_size;
        let norm = Role::EmbeddingNorm;
        Ok(Self {
            words: reader.table(Role::WordEmbedding, width)?,
            positions: reader.table(Role::PositionEmbedding, width)?,
            types: reader.table(Role::TokenTypeEmbedding, width)?,
            norm: LayerNorm::new(
                reader.read(norm.weight())?,
                reader.read(norm.bias())?,
                config.layer_norm_eps,
            ),
            projection: match config.has_embedding_projection() {
                true => Some(reader.linear(Role::EmbeddingProjection)?),
                false => None,
            },
            pooler: reader.linear(Role::Pooler)?,
            pooler_activation: config.family.pooler_activation,
            classifier: reader.linear(Role::Classifier)?,
            encoder: BertEncoder::load(
                vb.pp("encoder"),
                &candle_config(config, &checkpoint.origin)?,
            )
            .map_err(|error| reader.invalid(&error))?,
            labels: checkpoint.labels.len(),
            device,
        })
    }

    fn is_on_device(&self) -> bool {
        !self.device.is_cpu()
    }

    /// The normalized embeddings, `[sequences, tokens, hidden]`.
    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> candle_core::Result<Tensor> {
        let width = ids.dim(1)?;
        let positions = Tensor::arange(0, u32::try_from(width).unwrap_or(u32::MAX), &self.device)?;
        let positions = self.positions.forward(&positions)?;
        let sum = (self.words.forward(ids)? + self.types.forward(type_ids)?)?;
        let embedded = self.norm.forward(&sum.broadcast_add(&positions)?)?;
        match &self.projection {
            Some(projection) => projection.forward(&embedded),
            None => Ok(embedded),
        }
    }

    /// Logits of the sequences `batch`, padded to the longest: `[sequences, labels]`.
    pub(super) fn logits(&self, batch: &[Sequence<'_>]) -> candle_core::Result<Vec<f32>> {
        let lengths = batch.iter().map(|sequence| sequence.ids.len());
        let width = lengths.max().unwrap_or(0);
        let padded = |row: &dyn Fn(usize) -> Vec<u32>| {
            let mut values = Vec::with_capacity(batch.len() * width);
            for index in 0..batch.len() {
                values.extend(row(index));
                values.resize((index + 1) * width, 0);
            }
            Tensor::from_vec(values, (batch.len(), width), &self.device)
        };
        let ids = padded(&|index| batch[index].ids.to_vec())?;
        let type_ids = padded(&|index| batch[index].type_ids.to_vec())?;
        let mask = padded(&|index| vec![1; batch[index].ids.len()])?;
        let hidden = self.embed(&ids, &type_ids)?;
        let hidden = self.encoder.forward(&hidden, &additive(&mask)?)?;
        let cls = hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let pooled = self.pooler.forward(&cls)?;
        let pooled = match self.pooler_activation {
            Activation::Tanh => pooled.tanh(),
            Activation::Relu => pooled.relu(),
            Activation::Gelu => pooled.gelu_erf(),
            Activation::GeluTanh => pooled.gelu(),
        }?;
        self.classifier.forward(&pooled)?.flatten_all()?.to_vec1()
    }
}

/// A mask of 1 for tokens and 0 for padding, `[sequences, tokens]`, as what is added to the scores of attention.
fn additive(mask: &Tensor) -> candle_core::Result<Tensor> {
    let mask = mask.unsqueeze(1)?.unsqueeze(1)?.to_dtype(DType::F32)?;
    // 1 becomes 0, and 0 the smallest number.
    (mask - 1.0)? * -f64::from(f32::MIN)
}

/// The padded engine.
#[derive(Debug)]
pub struct Candle {
    bert: CandleBert,
    description: String,
    done: VecDeque<Logits>,
}

impl Candle {
    /// Loads the model on the CPU.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn cpu(checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        Self::load(checkpoint, Device::Cpu, "candle f32, cpu".to_owned())
    }

    /// Loads the model on CUDA device `ordinal`.
    ///
    /// # Errors
    /// When a tensor cannot be read, or when candle cannot use the device.
    #[cfg(feature = "candle-cuda")]
    pub fn cuda(checkpoint: &Checkpoint, ordinal: usize) -> Result<Self, LoadError> {
        // A fixed stream, because candle's default stream differs from thread to thread.
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
            bert: CandleBert::load(checkpoint, device)?,
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
        let sequences: Vec<Sequence<'_>> = Sequence::all(batch).collect();
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

/// Errors after which a CUDA context is unusable (listed in the CUDA driver API).
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

/// Classifies an error by its text, because candle reports CUDA's errors only as text.
fn engine_error(text: &str, tokens: usize) -> EngineError {
    if text.contains("OUT_OF_MEMORY") {
        EngineError::OutOfMemory { tokens }
    } else if STICKY.iter().any(|name| text.contains(name)) {
        EngineError::Lost(text.to_owned())
    } else {
        EngineError::Batch(text.to_owned())
    }
}

/// Our configuration as candle's.
fn candle_config(config: &ModelConfig, origin: &str) -> Result<Config, CheckpointError> {
    Ok(Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        intermediate_size: config.intermediate_size,
        hidden_act: match config.activation {
            Activation::Gelu => HiddenAct::Gelu,
            Activation::GeluTanh => HiddenAct::GeluApproximate,
            Activation::Relu => HiddenAct::Relu,
            Activation::Tanh => {
                let expected = "an activation that candle's BERT has";
                return Err(CheckpointError::invalid(
                    origin,
                    "hidden_act",
                    expected,
                    "tanh",
                ));
            }
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
        // With a name here, candle would also look for tensors with the prefix `bert.`.
        model_type: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_errors_are_classified_by_name() {
        let error = |text: &str| engine_error(text, 7);
        // As cudarc's `DriverError` prints itself.
        let text = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        assert_eq!(error(text), EngineError::OutOfMemory { tokens: 7 });
        let text = "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access\")";
        assert!(matches!(error(text), EngineError::Lost(_)));
        assert!(matches!(error("shape mismatch"), EngineError::Batch(_)));
    }
}
