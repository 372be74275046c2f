//! The reference engine: candle-transformers' BERT layers with each family's embeddings, pooler and classifier, one sequence
//! at a time, in f32.
//!
//! It defines correct logits, so it is plain and slow. It is tested against Hugging Face transformers, and every other
//! engine is tested against it.

use std::collections::VecDeque;

use super::batch::{Logits, RaggedBatch};
use super::candle::{CandleBert, Sequence};
use super::error::EngineError;
use super::interface::Engine;
use intentd_model::{Checkpoint, CheckpointError};

/// The engine that defines correct logits.
#[derive(Debug)]
pub struct Reference {
    bert: CandleBert,
    done: VecDeque<Logits>,
}

impl Reference {
    /// Copies the weights into candle tensors.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        Ok(Self {
            bert: CandleBert::load(checkpoint, candle_core::Device::Cpu)?,
            done: VecDeque::new(),
        })
    }
}

impl Engine for Reference {
    fn description(&self) -> String {
        "reference f32 (candle-transformers)".to_owned()
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let mut values = Vec::with_capacity(batch.sequences() * self.bert.labels);
        for sequence in Sequence::all(batch) {
            let logits = self.bert.logits(&[sequence]);
            values.extend(logits.map_err(|error| EngineError::Batch(error.to_string()))?);
        }
        self.done.push_back(Logits::new(values, self.bert.labels));
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.done
            .pop_front()
            .ok_or_else(|| EngineError::Batch("nothing was submitted".to_owned()))
    }
}
