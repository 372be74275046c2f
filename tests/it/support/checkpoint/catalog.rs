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

/// A name and what makes its specification.
type Entry = (&'static str, fn() -> Spec);

/// Every checkpoint with golden files, by name.
pub(crate) const CATALOG: [Entry; 4] = [
    ("base", base),
    ("cased", cased),
    ("multilabel", multilabel),
    ("bf16", bf16),
];

/// The checkpoint of this name.
pub(crate) fn spec(name: &str) -> Option<Spec> {
    CATALOG
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, spec)| spec())
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
        layer_norm_eps: 1e-12,
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
        layer_norm_eps: 1e-12,
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
        layer_norm_eps: 1e-12,
        labels: TOPIC_LABELS.to_vec(),
        problem_type: Some("multi_label_classification"),
    }
}

/// bfloat16, ReLU, a single logit, accents kept while lower-casing, and an ε large enough to show.
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
        layer_norm_eps: 1e-3,
        labels: vec!["urgent"],
        problem_type: None,
    }
}
