//! BERT: Hugging Face's `BertForSequenceClassification`.

use super::activation::Activation;
use super::family::{Alias, ConfigKeys, Family, FirstPosition, ModuleNames, SizeKey};

/// Names and defaults of transformers' `BertConfig` and `BertForSequenceClassification`.
pub static BERT: Family = Family {
    model_type: "bert",
    classifier_class: "BertForSequenceClassification",
    keys: ConfigKeys {
        vocab_size: SizeKey::new("vocab_size", 30_522),
        hidden_size: SizeKey::new("hidden_size", 768),
        layers: SizeKey::new("num_hidden_layers", 12),
        heads: SizeKey::new("num_attention_heads", 12),
        intermediate_size: SizeKey::new("intermediate_size", 3072),
        max_positions: SizeKey::new("max_position_embeddings", 512),
        type_vocab_size: Some(SizeKey::new("type_vocab_size", 2)),
        activation: "hidden_act",
        activation_default: Activation::Gelu,
        layer_norm_eps: Some("layer_norm_eps"),
        layer_groups: None,
        embedding_projection: None,
    },
    // Checkpoints saved from a bare `BertModel` have no prefix.
    optional_prefix: "bert.",
    aliases: LAYER_NORM_ALIASES,
    modules: ModuleNames {
        word_embedding: "bert.embeddings.word_embeddings",
        position_embedding: "bert.embeddings.position_embeddings",
        token_type_embedding: Some("bert.embeddings.token_type_embeddings"),
        embedding_norm: "bert.embeddings.LayerNorm",
        layers: "bert.encoder.layer",
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        feed_forward_in: "intermediate.dense",
        feed_forward_out: "output.dense",
        feed_forward_norm: "output.LayerNorm",
        pooler: "bert.pooler.dense",
        classifier: "classifier",
    },
    pooler_activation: Activation::Tanh,
    first_position: FirstPosition::Zero,
};

/// LayerNorm in checkpoints converted from TensorFlow.
pub(super) const LAYER_NORM_ALIASES: &[Alias] = &[alias("gamma", "weight"), alias("beta", "bias")];

const fn alias(stored: &'static str, canonical: &'static str) -> Alias {
    Alias { stored, canonical }
}
