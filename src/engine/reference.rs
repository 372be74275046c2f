//! The definition of correct: candle-transformers' BERT plus pooler and classifier, one sequence
//! at a time, in f32. Slow and plain on purpose; every other engine is tested against it, and it
//! against Hugging Face transformers.

use std::collections::{HashMap, VecDeque};

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};

use super::{Engine, EngineError, Logits, RaggedBatch};
use crate::model::{Activation, Checkpoint, CheckpointError, ModelConfig, expected_tensors};

/// candle-transformers' BERT with the classification head.
pub struct Reference {
    bert: BertModel,
    pooler: Linear,
    classifier: Linear,
    labels: usize,
    done: VecDeque<Logits>,
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reference")
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

impl Reference {
    /// Copies the weights into candle tensors.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let (config, labels) = (&checkpoint.config, checkpoint.labels.len());
        let mut shapes: Vec<(String, Vec<usize>)> = expected_tensors(config).collect();
        shapes.push((
            "classifier.weight".to_owned(),
            vec![labels, config.hidden_size],
        ));
        shapes.push(("classifier.bias".to_owned(), vec![labels]));
        let candle = |error: candle_core::Error| {
            CheckpointError::invalid(&checkpoint.origin, "(tensors)", "a BERT classifier", error)
        };
        let mut tensors = HashMap::new();
        for (name, shape) in shapes {
            let values = checkpoint.weights.f32(&name, &shape)?;
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).map_err(candle)?;
            tensors.insert(name, tensor);
        }
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let h = config.hidden_size;
        Ok(Self {
            pooler: candle_nn::linear(h, h, vb.pp("pooler.dense")).map_err(candle)?,
            classifier: candle_nn::linear(h, labels, vb.pp("classifier")).map_err(candle)?,
            bert: BertModel::load(vb, &candle_config(config)).map_err(candle)?,
            labels,
            done: VecDeque::new(),
        })
    }

    fn sequence(&self, ids: &[u32], type_ids: &[u32]) -> candle_core::Result<Vec<f32>> {
        let row = |values: &[u32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu);
        let hidden = self.bert.forward(&row(ids)?, &row(type_ids)?, None)?;
        let cls = hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let pooled = self.pooler.forward(&cls)?.tanh()?;
        self.classifier
            .forward(&pooled)?
            .squeeze(D::Minus2)?
            .to_vec1()
    }
}

impl Engine for Reference {
    fn description(&self) -> String {
        "reference f32 (candle-transformers)".to_owned()
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let mut values = Vec::with_capacity(batch.sequences() * self.labels);
        for range in batch.ranges() {
            let (ids, type_ids) = (&batch.ids()[range.clone()], &batch.type_ids()[range]);
            let logits = self.sequence(ids, type_ids);
            values.extend(logits.map_err(|error| EngineError::Batch(error.to_string()))?);
        }
        self.done.push_back(Logits::new(values, self.labels));
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.done
            .pop_front()
            .ok_or_else(|| EngineError::Batch("nothing was submitted".to_owned()))
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
