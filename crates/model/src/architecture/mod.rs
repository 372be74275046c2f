//! Encoder families: which tensors an encoder has, and how each family's checkpoints name them.
//!
//! All families share one skeleton: embeddings, post-norm Transformer layers, a tanh pooler, and a linear classifier.
//! Engines ask for tensors by [`Role`]; only a [`Family`] knows the names in a checkpoint. To add a family of this
//! skeleton, write its file next to `bert.rs` and register it in [`FAMILIES`].

mod bert;
mod family;
mod role;

pub use bert::BERT;
pub use family::{Alias, ConfigKeys, Family, ModuleNames, SizeKey};
pub use role::{Role, TensorKey, TensorKind};

/// The families that can be loaded. The first is assumed when `config.json` has no `model_type`.
pub static FAMILIES: &[&Family] = &[&BERT];
