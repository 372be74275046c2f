//! ALBERT: Hugging Face's `AlbertForSequenceClassification`. Layers share their weights by groups, usually all of them,
//! and the embeddings are narrower than the layers.

use super::activation::Activation;
use super::bert::{BERT, LAYER_NORM_ALIASES};
use super::family::{ConfigKeys, EmbeddingProjection, Family, FirstPosition, ModuleNames, SizeKey};

/// Names and defaults of transformers' `AlbertConfig` and `AlbertForSequenceClassification`.
pub static ALBERT: Family = Family {
    model_type: "albert",
    classifier_class: "AlbertForSequenceClassification",
    keys: ConfigKeys {
        vocab_size: SizeKey::new("vocab_size", 30_000),
        hidden_size: SizeKey::new("hidden_size", 4096),
        heads: SizeKey::new("num_attention_heads", 64),
        intermediate_size: SizeKey::new("intermediate_size", 16_384),
        activation_default: Activation::GeluTanh,
        layer_groups: Some(SizeKey::new("num_hidden_groups", 1)),
        embedding_projection: Some(EmbeddingProjection {
            size: SizeKey::new("embedding_size", 128),
            module: "albert.encoder.embedding_hidden_mapping_in",
            is_always: true,
        }),
        ..BERT.keys
    },
    optional_prefix: "albert.",
    aliases: LAYER_NORM_ALIASES,
    modules: ModuleNames {
        word_embedding: "albert.embeddings.word_embeddings",
        position_embedding: "albert.embeddings.position_embeddings",
        token_type_embedding: Some("albert.embeddings.token_type_embeddings"),
        embedding_norm: "albert.embeddings.LayerNorm",
        // A group has one layer: `inner_group_num` has to be 1.
        layers: "albert.encoder.albert_layer_groups",
        query: "albert_layers.0.attention.query",
        key: "albert_layers.0.attention.key",
        value: "albert_layers.0.attention.value",
        attention_output: "albert_layers.0.attention.dense",
        attention_norm: "albert_layers.0.attention.LayerNorm",
        feed_forward_in: "albert_layers.0.ffn",
        feed_forward_out: "albert_layers.0.ffn_output",
        feed_forward_norm: "albert_layers.0.full_layer_layer_norm",
        pooler: "albert.pooler",
        classifier: "classifier",
    },
    pooler_activation: Activation::Tanh,
    first_position: FirstPosition::Zero,
};
