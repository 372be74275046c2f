//! Ragged batches of token ids to logits.
//!
//! An [`Engine`] is owned by one thread. It takes batches in order and gives their logits back
//! in the same order; how many may be under way at once is the engine's to say
//! ([`Engine::depth`]): one for an engine that computes on the caller's thread, two for a device
//! that can copy the next batch while it runs one. [`Reference`] defines what is correct;
//! [`Cpu`] is tested against it.

mod batch;
mod cpu;
mod reference;

use std::num::NonZeroUsize;

pub use batch::{Logits, RaggedBatch};
pub use cpu::Cpu;
pub use reference::Reference;

use crate::model::{Checkpoint, CheckpointError};

/// A batch that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device has no memory for a batch of this size; a smaller one may pass.
    #[error("out of memory for {tokens} tokens")]
    OutOfMemory {
        /// Tokens of the batch.
        tokens: usize,
    },
    /// This batch failed; the engine is as good as before.
    #[error("the batch failed: {0}")]
    Batch(String),
    /// The engine cannot be used any more.
    #[error("the engine is lost: {0}")]
    Lost(String),
}

/// Something that runs a BERT classifier.
pub trait Engine: Send {
    /// What runs where, for logs and `inspect`: `cpu f32, 2 threads`.
    fn description(&self) -> String;

    /// How many batches may be submitted and not yet collected.
    fn depth(&self) -> usize {
        1
    }

    /// Takes a batch. The engine has copied what it needs when this returns, and may return
    /// before anything is computed. Called with at most `depth() - 1` batches under way.
    ///
    /// # Errors
    /// See [`EngineError`]; nothing is then added to the batches under way.
    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError>;

    /// Waits for the oldest batch under way and gives its logits, `[sequences, labels]`.
    ///
    /// # Errors
    /// See [`EngineError`]; the batch is then no longer under way.
    fn collect(&mut self) -> Result<Logits, EngineError>;

    /// One batch from start to end, with nothing else under way.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn forward(&mut self, batch: &RaggedBatch) -> Result<Logits, EngineError> {
        self.submit(batch)?;
        self.collect()
    }
}

/// Which engine runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineKind {
    /// Our own forward pass for the CPU: ragged, weights prepared once.
    Cpu,
    /// candle-transformers' BERT, one text at a time: the definition of correct, slow.
    Reference,
}

/// Prepares `checkpoint` for the engine `kind`.
///
/// `threads` bounds the cores a CPU engine computes on.
///
/// # Errors
/// When a tensor cannot be read; [`CheckpointError`] says which.
pub fn load(
    kind: EngineKind,
    checkpoint: &Checkpoint,
    threads: NonZeroUsize,
) -> Result<Box<dyn Engine>, CheckpointError> {
    Ok(match kind {
        EngineKind::Cpu => Box::new(Cpu::load(checkpoint, threads)?),
        EngineKind::Reference => Box::new(Reference::load(checkpoint)?),
    })
}
