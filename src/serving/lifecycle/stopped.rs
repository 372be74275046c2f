//! Errors of an engine's thread and of a reload.

use std::time::Duration;

use crate::engine::{EngineError, LoadError};

/// The error with which an engine's thread ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineStopped {
    /// The checkpoint or the device cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine was lost while serving.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Loading panicked.
    #[error("loading the model panicked; the checkpoint is damaged in a way that is not checked")]
    PanickedLoading,
    /// The engine hangs in a batch.
    #[error("the engine has not got anywhere for {0:?} (--engine-timeout)")]
    Stuck(Duration),
    /// The engine's thread panicked while serving.
    #[error("the engine's thread panicked; what waited was refused")]
    PanickedServing,
}

/// The error of a reload. The old model stays in use.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The phase does not allow a reload.
    #[error("the server is {0}; models are replaced while it serves")]
    Phase(&'static str),
    /// Another reload is in progress.
    #[error("another reload is under way; try again when it is done")]
    Busy,
    /// The operating system cannot start a thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The new model cannot be used.
    #[error("the model in use was kept: {0}")]
    Stopped(EngineStopped),
}
