//! The errors of a training run. Each names the file, line or setting at fault.

use std::path::{Path, PathBuf};

/// Why a training run, a checkpoint or an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A file could not be read, written or created.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line of a data file is not `{"text": …, "label": …}`.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// The data file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The mistake in it.
        reason: String,
    },
    /// The recipe cannot be read or is inconsistent.
    #[error("recipe: {0}")]
    Recipe(String),
    /// No text is left to train on.
    #[error("the training data is empty: no labelled text is left after mapping and exclusion")]
    Empty,
    /// There is only one label.
    #[error("the training data has only one label ({0}): a classifier needs at least two")]
    OneLabel(String),
    /// The tokenizer could not be trained, read or applied.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A tensor operation failed.
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A model directory or a checkpoint has missing or wrong content.
    #[error("{path}: {reason}")]
    Model {
        /// The file.
        path: PathBuf,
        /// The missing or wrong content.
        reason: String,
    },
    /// The checkpoint belongs to another recipe or to other data.
    #[error(
        "{0}: the checkpoint was written for another recipe or other data; remove it or train \
         without resuming"
    )]
    OtherRun(PathBuf),
    /// The loss is not finite, so no later weight would be either.
    #[error("the loss is not finite at step {step}: lower the learning rate")]
    Diverged {
        /// The optimiser step, counted from 1.
        step: usize,
    },
}

impl TrainError {
    /// Wraps an I/O error with the path it happened on; meant for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// Wraps an error of the tokenizers crate, whose errors are boxed and not `'static`-typed.
    pub(crate) fn tokenizer(error: impl std::fmt::Display) -> Self {
        Self::Tokenizer(error.to_string())
    }
}
