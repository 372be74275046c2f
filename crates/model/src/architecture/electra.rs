//! ELECTRA: Hugging Face's `ElectraForSequenceClassification`. The head's dense layer, with GELU, is the pooler; the
//! embeddings of small models are narrower than the layers.

use super::activation::Activation;
use super::bert::{BERT, LAYER_NORM_ALIASES};
use super::family::{ConfigKeys, EmbeddingProjection, Family, FirstPosition, ModuleNames, SizeKey};

/// Names and defaults of transformers' `ElectraConfig` and `ElectraForSequenceClassification`.
pub static ELECTRA: Family = Family {
    model_type: "electra",
    classifier_class: "ElectraForSequenceClassification",
    keys: ConfigKeys {
        hidden_size: SizeKey::new("hidden_size", 256),
        heads: SizeKey::new("num_attention_heads", 4),
        intermediate_size: SizeKey::new("intermediate_size", 1024),
        embedding_projection: Some(EmbeddingProjection {
            size: SizeKey::new("embedding_size", 128),
            module: "electra.embeddings_project",
            is_always: false,
        }),
        ..BERT.keys
    },
    optional_prefix: "electra.",
    aliases: LAYER_NORM_ALIASES,
    modules: ModuleNames {
        word_embedding: "electra.embeddings.word_embeddings",
        position_embedding: "electra.embeddings.position_embeddings",
        token_type_embedding: Some("electra.embeddings.token_type_embeddings"),
        embedding_norm: "electra.embeddings.LayerNorm",
        layers: "electra.encoder.layer",
        pooler: "classifier.dense",
        classifier: "classifier.out_proj",
        ..BERT.modules
    },
    pooler_activation: Activation::Gelu,
    first_position: FirstPosition::Zero,
};
