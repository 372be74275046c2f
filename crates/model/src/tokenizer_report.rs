//! What the files of a tokenizer said and what became of it, for people.

use serde::Serialize;
use serde_json::Value;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizerWrapper, Tokenizer};

use super::tokenizer_class::TokenizerClass;

/// How a tokenizer came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenizerReport {
    /// The tokenizer class of transformers.
    pub class: String,
    /// What names it: a file, or the model's family.
    pub class_from: String,
    /// The files that were read.
    pub files: Vec<String>,
    /// Settings of the class that a file gives: `key value`.
    pub read: Vec<String>,
    /// Settings of the class that no file gives: `key (value)`.
    pub defaults: Vec<String>,
    /// Where BERT's normalizer in `tokenizer.json` is replaced.
    pub overridden: Vec<String>,
    /// Keys that do not change the tokens of this class.
    pub ignored: Vec<String>,
}

/// The settings that a class reads, with their defaults.
pub(super) fn settings(class: TokenizerClass) -> &'static [(&'static str, &'static str)] {
    match class {
        TokenizerClass::Bert | TokenizerClass::DistilBert => &[
            ("do_lower_case", "true"),
            ("strip_accents", "as do_lower_case"),
            ("tokenize_chinese_chars", "true"),
        ],
        TokenizerClass::Roberta => &[("add_prefix_space", "false"), ("trim_offsets", "true")],
        TokenizerClass::XlmRoberta | TokenizerClass::Camembert => &[("add_prefix_space", "true")],
        TokenizerClass::Albert => &[
            ("do_lower_case", "true"),
            ("keep_accents", "false"),
            ("add_prefix_space", "true"),
        ],
        TokenizerClass::Backend => &[],
    }
}

/// Settings that every class reads, with their defaults.
pub(super) const COMMON: [(&str, &str); 4] = [
    ("model_max_length", "the model's positions"),
    ("truncation_side", "that of tokenizer.json, or right"),
    ("model_input_names", "those of the class"),
    ("split_special_tokens", "false"),
];

impl TokenizerReport {
    /// The report of a class on its arguments.
    pub(super) fn new(class: TokenizerClass, from: String, kwargs: &[(String, Value)]) -> Self {
        let mut report = Self {
            class: class.name().to_owned(),
            class_from: from,
            ..Self::default()
        };
        let settings = settings(class).iter().chain(&COMMON);
        for (key, default) in settings.clone() {
            match kwargs
                .iter()
                .find(|(name, value)| name == key && !value.is_null())
            {
                Some((_, value)) => report.read.push(format!("{key} {value}")),
                None => report.defaults.push(format!("{key} ({default})")),
            }
        }
        let is_read = |key: &str| {
            settings.clone().any(|(name, _)| *name == key)
                || key == "tokenizer_class"
                || key == "added_tokens_decoder"
                || key.ends_with("_token")
                || key.ends_with("_special_tokens")
        };
        let ignored = kwargs.iter().map(|(key, _)| key);
        report.ignored = ignored.filter(|key| !is_read(key)).cloned().collect();
        report
    }

    /// Notes where the normalizer of `tokenizer.json` differs from the one that is used.
    pub(super) fn compare(&mut self, json: Option<&Tokenizer>, used: &Tokenizer) {
        let of = |tokenizer: &Tokenizer| match tokenizer.get_normalizer() {
            Some(NormalizerWrapper::BertNormalizer(normalizer)) => Some(*normalizer),
            _ => None,
        };
        let (Some(json), Some(used)) = (json.and_then(of), of(used)) else {
            return;
        };
        for (key, value) in settings_of(&json) {
            let Some((_, used)) = settings_of(&used)
                .into_iter()
                .find(|(other, _)| *other == key)
            else {
                continue;
            };
            if value != used {
                self.overridden
                    .push(format!("{key} {value} of tokenizer.json by {used}"));
            }
        }
    }
}

fn settings_of(normalizer: &BertNormalizer) -> [(&'static str, String); 3] {
    let accents = normalizer.strip_accents.unwrap_or(normalizer.lowercase);
    [
        ("lowercase", normalizer.lowercase.to_string()),
        ("strip_accents", accents.to_string()),
        (
            "handle_chinese_chars",
            normalizer.handle_chinese_chars.to_string(),
        ),
    ]
}
