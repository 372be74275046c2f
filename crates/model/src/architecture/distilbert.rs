//! DistilBERT: Hugging Face's `DistilBertForSequenceClassification`. No token types, and a pooler with ReLU.

use super::activation::Activation;
use super::bert::LAYER_NORM_ALIASES;
use super::family::{ConfigKeys, Family, FirstPosition, ModuleNames, SizeKey};

/// Names and defaults of transformers' `DistilBertConfig` and `DistilBertForSequenceClassification`.
pub static DISTILBERT: Family = Family {
    model_type: "distilbert",
    classifier_class: "DistilBertForSequenceClassification",
    keys: ConfigKeys {
        vocab_size: SizeKey::new("vocab_size", 30_522),
        hidden_size: SizeKey::new("dim", 768).or("hidden_size"),
        layers: SizeKey::new("n_layers", 6).or("num_hidden_layers"),
        heads: SizeKey::new("n_heads", 12).or("num_attention_heads"),
        intermediate_size: SizeKey::new("hidden_dim", 3072),
        max_positions: SizeKey::new("max_position_embeddings", 512),
        type_vocab_size: None,
        activation: "activation",
        activation_default: Activation::Gelu,
        layer_norm_eps: None,
        layer_groups: None,
        embedding_projection: None,
    },
    optional_prefix: "distilbert.",
    aliases: LAYER_NORM_ALIASES,
    modules: ModuleNames {
        word_embedding: "distilbert.embeddings.word_embeddings",
        position_embedding: "distilbert.embeddings.position_embeddings",
        token_type_embedding: None,
        embedding_norm: "distilbert.embeddings.LayerNorm",
        layers: "distilbert.transformer.layer",
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        feed_forward_in: "ffn.lin1",
        feed_forward_out: "ffn.lin2",
        feed_forward_norm: "output_layer_norm",
        pooler: "pre_classifier",
        classifier: "classifier",
    },
    pooler_activation: Activation::Relu,
    first_position: FirstPosition::Zero,
};
