//! Checkpoints: configuration, labels, tokenizer, weights.
//!
//! Takes a Hugging Face directory with a sequence classifier. Gives a [`Checkpoint`] in which every tensor has the
//! shape that the configuration states, or one [`CheckpointError`] that names the file, the key, the expected value
//! and the found value. Computes nothing.

#![forbid(unsafe_code)]

mod architecture;
mod checkpoint;
mod config;
mod digest;
mod embedded;
mod encoding;
mod error;
mod files;
mod labels;
mod python_json;
mod shapes;
mod shards;
mod tokenizer;
mod tokenizer_build;
mod tokenizer_class;
mod tokenizer_config;
mod tokenizer_json;
mod tokenizer_report;
mod tokens;
mod weights;
mod words;

pub use architecture::{
    ALBERT, Activation, Alias, BERT, CAMEMBERT, ConfigKeys, DISTILBERT, ELECTRA,
    EmbeddingProjection, FAMILIES, Family, FirstPosition, ModuleNames, ROBERTA, Role, SizeKey,
    TensorKey, TensorKind, XLM_ROBERTA,
};
pub use checkpoint::Checkpoint;
pub use config::{ModelConfig, Scoring};
pub use encoding::{EncodeError, Encoded, Text, TooLong};
pub use error::CheckpointError;
pub use files::Files;
pub use labels::{Labels, Score};
pub use tokenizer::Tokenizer;
pub use tokenizer_report::TokenizerReport;
pub use tokens::Token;
pub use weights::{Tensor, Weights, WeightsSize};
