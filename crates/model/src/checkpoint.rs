//! A classifier as Hugging Face stores it, read and checked.

use std::path::Path;

use super::config::ModelConfig;
use super::embedded;
use super::error::CheckpointError;
use super::files::Files;
use super::labels::Labels;
use super::tokenizer::Tokenizer;
use super::weights::Weights;

/// A sequence classifier, read and checked.
#[derive(Debug)]
pub struct Checkpoint {
    /// The source of the files, as a user would name it.
    pub origin: String,
    /// The sizes and settings from `config.json`.
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

    /// Reads the default model in the binary.
    ///
    /// # Errors
    /// Never for a binary that passed its tests. The checks are the same as for a directory.
    pub fn embedded() -> Result<Self, CheckpointError> {
        Self::read(&embedded::INTENT_SNIPS)
    }

    /// [`open`](Self::open) for `Some(directory)`, [`embedded`](Self::embedded) for `None`.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open_or_embedded(directory: Option<&Path>) -> Result<Self, CheckpointError> {
        directory.map_or_else(Self::embedded, Self::open)
    }

    /// Reads the files of a Hugging Face directory from any source.
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
