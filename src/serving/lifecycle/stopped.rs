//! Why an engine's thread ended, and why a model was not replaced.

use std::time::Duration;

use crate::engine::{EngineError, LoadError};

/// Why the engine's thread ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineStopped {
    /// The checkpoint or the device cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine broke while serving.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Loading panicked.
    #[error("loading the model panicked; the checkpoint is damaged in a way that is not checked")]
    PanickedLoading,
    /// The engine has taken a batch and does not come back.
    #[error("the engine has not got anywhere for {0:?} (--engine-timeout)")]
    Stuck(Duration),
    /// The engine's thread panicked while serving.
    #[error("the engine's thread panicked; what waited was refused")]
    PanickedServing,
}

/// Why a model was not replaced. The one before goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is nothing to replace, or nothing to replace it for.
    #[error("the server is {0}; models are replaced while it serves")]
    Phase(&'static str),
    /// Another reload is under way.
    #[error("another reload is under way; try again when it is done")]
    Busy,
    /// The operating system gives no thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The new model cannot be used.
    #[error("the model in use was kept: {0}")]
    Stopped(EngineStopped),
}
