//! Failures of loading a model and of running a batch.

use intentd_kernels::DeviceError;

use intentd_model::CheckpointError;

/// A batch that got no logits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device has no memory for a batch of this size. A smaller one may fit.
    #[error("out of memory for {tokens} tokens")]
    OutOfMemory {
        /// Tokens in the batch.
        tokens: usize,
    },
    /// The batch failed. The engine still works.
    #[error("the batch failed: {0}")]
    Batch(String),
    /// The engine cannot be used any more.
    #[error("the engine is lost: {0}")]
    Lost(String),
}

/// The reason why a model was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
