//! What a checkpoint is: configuration, labels, tokenizer, weights.
//!
//! A Hugging Face directory with a BERT sequence classifier goes in; a [`Checkpoint`] whose
//! every tensor has the shape its configuration says comes out, or one [`CheckpointError`] that
//! names the file, the key, what was expected and what was found. Nothing here computes.

mod config;
mod digest;
mod embedded;
mod error;
mod files;
mod labels;
mod tokenizer;
mod tokenizer_json;
mod tokens;
mod vocabulary;
mod weights;
mod words;

use std::path::Path;

pub use config::{Activation, ModelConfig, Scoring};
pub use error::CheckpointError;
pub use files::Files;
pub use labels::{Labels, Score};
pub use tokenizer::{EncodeError, Encoded, Text, Tokenizer, TooLong};
pub use tokens::Token;
pub(crate) use weights::expected_tensors;
pub use weights::{Tensor, Weights};

/// A BERT classifier, read and checked.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it came from, as a user would name it.
    pub origin: String,
    /// The shape.
    pub config: ModelConfig,
    /// The classes.
    pub labels: Labels,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The tensors, as stored.
    pub weights: Weights,
}

impl Checkpoint {
    /// Reads a Hugging Face directory.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        Self::read(&Files::directory(directory)?)
    }

    /// The default model in the binary.
    ///
    /// # Errors
    /// Never for a binary that passed its tests; the same checks run as for a directory.
    pub fn embedded() -> Result<Self, CheckpointError> {
        Self::read(&embedded::INTENT_SNIPS)
    }

    /// `Some(directory)` as [`open`](Self::open), `None` as [`embedded`](Self::embedded).
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open_or_embedded(directory: Option<&Path>) -> Result<Self, CheckpointError> {
        directory.map_or_else(Self::embedded, Self::open)
    }

    /// Reads the files of a Hugging Face directory, wherever they are.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn read(files: &Files) -> Result<Self, CheckpointError> {
        let config = ModelConfig::read(files)?;
        let weights = Weights::read(files, &config)?;
        let rows = weights.label_count();
        let labels = Labels::new(files, config.id2label.as_deref(), rows, config.scoring)?;
        let tokenizer = Tokenizer::read(files, &config)?;
        Ok(Self {
            origin: files.origin(),
            config,
            labels,
            tokenizer,
            weights,
        })
    }
}
