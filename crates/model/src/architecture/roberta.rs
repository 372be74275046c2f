//! RoBERTa and its relatives CamemBERT and XLM-RoBERTa: Hugging Face's `RobertaForSequenceClassification` and the like.
//!
//! They differ from BERT in where positions begin and in the names of the head: its dense layer is the pooler. The three
//! differ from each other in their tokenizers and in the default size of the vocabulary.

use super::activation::Activation;
use super::bert::{BERT, LAYER_NORM_ALIASES};
use super::family::{ConfigKeys, Family, FirstPosition, ModuleNames, SizeKey};

/// Names and defaults of transformers' `RobertaConfig` and `RobertaForSequenceClassification`.
pub static ROBERTA: Family = family("roberta", "RobertaForSequenceClassification", 50_265);

/// Names and defaults of transformers' `CamembertConfig` and `CamembertForSequenceClassification`.
pub static CAMEMBERT: Family = family("camembert", "CamembertForSequenceClassification", 30_522);

/// Names and defaults of transformers' `XLMRobertaConfig` and `XLMRobertaForSequenceClassification`.
pub static XLM_ROBERTA: Family =
    family("xlm-roberta", "XLMRobertaForSequenceClassification", 30_522);

const fn family(
    model_type: &'static str,
    classifier_class: &'static str,
    vocab_size: usize,
) -> Family {
    Family {
        model_type,
        classifier_class,
        keys: ConfigKeys {
            vocab_size: SizeKey::new("vocab_size", vocab_size),
            ..BERT.keys
        },
        // All three use this prefix.
        optional_prefix: "roberta.",
        aliases: LAYER_NORM_ALIASES,
        modules: ModuleNames {
            word_embedding: "roberta.embeddings.word_embeddings",
            position_embedding: "roberta.embeddings.position_embeddings",
            token_type_embedding: Some("roberta.embeddings.token_type_embeddings"),
            embedding_norm: "roberta.embeddings.LayerNorm",
            layers: "roberta.encoder.layer",
            pooler: "classifier.dense",
            classifier: "classifier.out_proj",
            ..BERT.modules
        },
        pooler_activation: Activation::Tanh,
        first_position: FirstPosition::AfterPadding,
    }
}
