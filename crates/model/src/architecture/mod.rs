//! Encoder families: which tensors an encoder has, and how each family's checkpoints name them.
//!
//! All families share one skeleton: embeddings, post-norm Transformer layers, a pooler, and a linear classifier. Engines
//! ask for tensors by [`Role`]; only a [`Family`] knows the names in a checkpoint. To add a family of this skeleton, write
//! its file next to `bert.rs` and register it in [`FAMILIES`].

mod activation;
mod albert;
mod bert;
mod distilbert;
mod electra;
mod family;
mod roberta;
mod role;

pub use activation::Activation;
pub use albert::ALBERT;
pub use bert::BERT;
pub use distilbert::DISTILBERT;
pub use electra::ELECTRA;
pub use family::{
    Alias, ConfigKeys, EmbeddingProjection, Family, FirstPosition, ModuleNames, SizeKey,
};
pub use roberta::{CAMEMBERT, ROBERTA, XLM_ROBERTA};
pub use role::{Role, TensorKey, TensorKind};

/// The families that can be loaded. The first is assumed when `config.json` has no `model_type`.
pub static FAMILIES: &[&Family] = &[
    &BERT,
    &DISTILBERT,
    &ROBERTA,
    &XLM_ROBERTA,
    &CAMEMBERT,
    &ELECTRA,
    &ALBERT,
];
