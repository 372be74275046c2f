//! Ragged batches of token ids to logits.
//!
//! An [`Engine`] is owned by one thread. It takes batches in order and gives their logits back
//! in the same order; how many may be under way at once is the engine's to say
//! ([`Engine::depth`]): one for an engine that computes on the caller's thread, two for a device
//! that can copy the next batch while it runs one. [`Reference`] defines what is correct;
//! [`Cpu`] is tested against it.

mod batch;
mod cpu;
mod cuda;
mod reference;

use std::num::NonZeroUsize;
use std::time::Duration;

pub use batch::{Logits, RaggedBatch};
pub use cpu::Cpu;
pub use cuda::{Cuda, CudaOptions};
pub use reference::Reference;

use crate::model::{Checkpoint, CheckpointError, Text, TooLong};

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

/// Why a model could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] intentd_kernels::DeviceError),
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

    /// Work that the engine wants done off the requests' path, such as recording a graph; called
    /// after a batch has been answered. Takes a few milliseconds at most.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when the engine cannot be used any more.
    fn upkeep(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// How long the parts of loading took, in their order.
    fn startup_phases(&self) -> &[(&'static str, Duration)] {
        &[]
    }

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

/// Prepares `checkpoint` for the engine `kind` and lets it compute once.
///
/// `threads` bounds the cores a CPU engine computes on.
///
/// # Errors
/// When a tensor cannot be read, or when the model's answer is not a number; [`CheckpointError`]
/// says which.
pub fn load(
    kind: EngineKind,
    checkpoint: &Checkpoint,
    threads: NonZeroUsize,
) -> Result<Box<dyn Engine>, CheckpointError> {
    let mut engine: Box<dyn Engine> = match kind {
        EngineKind::Cpu => Box::new(Cpu::load(checkpoint, threads)?),
        EngineKind::Reference => Box::new(Reference::load(checkpoint)?),
    };
    self_test(checkpoint, &mut *engine).map_err(|found| {
        CheckpointError::invalid(&checkpoint.origin, "(self-test)", "finite logits", found)
    })?;
    Ok(engine)
}

/// One forward pass, so that damaged weights show before the first client comes.
fn self_test(checkpoint: &Checkpoint, engine: &mut dyn Engine) -> Result<(), String> {
    let text = Text::Single("a".to_owned());
    let encoded = checkpoint.tokenizer.encode(&text, TooLong::Truncate);
    let encoded = encoded.map_err(|error| error.to_string())?;
    let mut batch = RaggedBatch::new();
    batch.push(&encoded.ids, &encoded.type_ids);
    let logits = engine.forward(&batch).map_err(|error| error.to_string())?;
    match logits.rows().flatten().find(|logit| !logit.is_finite()) {
        Some(logit) => Err(format!("{logit}; the weights may be damaged")),
        None => Ok(()),
    }
}
