//! The checkpoints that have golden files, by name.

use super::{Dtype, Names, Shape, Spec, SpecialTokens, TokenizerFiles, TokenizerSpec};

const SNIPS_LABELS: [&str; 7] = [
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
];

const TOPIC_LABELS: [&str; 11] = [
    "account",
    "billing",
    "card",
    "delivery",
    "fraud",
    "insurance",
    "loan",
    "login",
    "refund",
    "travel",
    "other",
];

/// Every name which [`spec`] knows.
pub(crate) const NAMES: [&str; 4] = ["base", "cased", "multilabel", "bf16"];

/// The spec of the checkpoint with golden files of this name.
pub(crate) fn spec(name: &str) -> Option<Spec> {
    match name {
        "base" => Some(base()),
        "cased" => Some(cased()),
        "multilabel" => Some(multilabel()),
        "bf16" => Some(bf16()),
        _ => None,
    }
}

/// BERT-base with a small vocabulary: the size our speed is measured at.
fn base() -> Spec {
    Spec {
        seed: 1,
        shape: Shape {
            layers: 12,
            hidden: 768,
            heads: 12,
            intermediate: 3072,
            positions: 512,
        },
        dtype: Dtype::F32,
        shards: 1,
        names: Names::Current,
        tokenizer: TokenizerSpec {
            files: TokenizerFiles::Json,
            special_tokens: SpecialTokens::Google,
            lower_case: true,
            strip_accents: None,
            split_chinese: true,
        },
        hidden_act: "gelu",
        labels: SNIPS_LABELS.to_vec(),
        problem_type: None,
    }
}

/// Old names, another activation, and a head size of 24, which no vector width divides.
fn cased() -> Spec {
    Spec {
        seed: 2,
        shape: Shape {
            layers: 3,
            hidden: 96,
            heads: 4,
            intermediate: 200,
            positions: 128,
        },
        dtype: Dtype::F32,
        shards: 1,
        names: Names::Old,
        tokenizer: TokenizerSpec {
            files: TokenizerFiles::Vocab,
            special_tokens: SpecialTokens::First,
            lower_case: false,
            strip_accents: None,
            split_chinese: true,
        },
        hidden_act: "gelu_new",
        labels: SNIPS_LABELS.to_vec(),
        problem_type: Some("single_label_classification"),
    }
}

/// Half precision in three files, sigmoid scores, no splitting of Chinese.
fn multilabel() -> Spec {
    Spec {
        seed: 3,
        shape: Shape {
            layers: 2,
            hidden: 64,
            heads: 2,
            intermediate: 256,
            positions: 512,
        },
        dtype: Dtype::F16,
        shards: 3,
        names: Names::Current,
        tokenizer: TokenizerSpec {
            files: TokenizerFiles::Vocab,
            special_tokens: SpecialTokens::Last,
            lower_case: true,
            strip_accents: None,
            split_chinese: false,
        },
        hidden_act: "gelu",
        labels: TOPIC_LABELS.to_vec(),
        problem_type: Some("multi_label_classification"),
    }
}

/// bfloat16, ReLU, a single logit, and accents kept while lower-casing.
fn bf16() -> Spec {
    Spec {
        seed: 4,
        shape: Shape {
            layers: 2,
            hidden: 64,
            heads: 4,
            intermediate: 128,
            positions: 64,
        },
        dtype: Dtype::Bf16,
        shards: 1,
        names: Names::Current,
        tokenizer: TokenizerSpec {
            files: TokenizerFiles::Vocab,
            special_tokens: SpecialTokens::First,
            lower_case: true,
            strip_accents: Some(false),
            split_chinese: true,
        },
        hidden_act: "relu",
        labels: vec!["urgent"],
        problem_type: None,
    }
}
