//! The definition of correct: candle-transformers' BERT plus pooler and classifier, one sequence
//! at a time, in f32. Slow and plain on purpose; every other engine is tested against it, and it
//! against Hugging Face transformers.

use std::collections::VecDeque;

use super::candle::Bert;
use super::{Engine, EngineError, Logits, RaggedBatch};
use crate::model::{Checkpoint, CheckpointError};

/// candle-transformers' BERT with the classification head.
#[derive(Debug)]
pub struct Reference {
    bert: Bert,
    done: VecDeque<Logits>,
}

impl Reference {
    /// Copies the weights into candle tensors.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        Ok(Self {
            bert: Bert::load(checkpoint, candle_core::Device::Cpu)?,
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
        for range in batch.ranges() {
            let sequence = (&batch.ids()[range.clone()], &batch.type_ids()[range]);
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
