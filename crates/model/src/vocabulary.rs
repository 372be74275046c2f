//! `vocab.txt` and `tokenizer_config.json`: the tokenizer of a checkpoint without
//! `tokenizer.json`.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{AddedToken, ModelWrapper};

use super::error::CheckpointError;
use super::files::Files;

/// `model_max_length` of at least this means "no limit" (transformers writes 1e30).
const UNLIMITED: f64 = 1e9;

/// The content of `tokenizer_config.json`, with the defaults of Hugging Face's `BertTokenizer`.
pub(super) struct TokenizerSettings {
    lowercase: bool,
    strip_accents: Option<bool>,
    chinese_chars: bool,
    pub(super) max_tokens: Option<usize>,
    pub(super) direction: TruncationDirection,
    special: HashMap<&'static str, String>,
}

const SPECIAL: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

impl TokenizerSettings {
    pub(super) fn read(files: &Files) -> Result<Self, CheckpointError> {
        let path = files.path("tokenizer_config.json");
        let json: Value = match files.read("tokenizer_config.json")? {
            Some(content) => serde_json::from_slice(&content)
                .map_err(|error| CheckpointError::invalid(&path, "(file)", "JSON", error))?,
            None => Value::Null,
        };
        let flag = |key: &str| match json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(CheckpointError::invalid(
                &path,
                key,
                "true, false or null",
                other,
            )),
        };
        let mut special = HashMap::new();
        for (key, default) in SPECIAL {
            // Either a string or an object that describes the token.
            let token = json
                .get(key)
                .and_then(|v| v.as_str().or(v.get("content")?.as_str()));
            special.insert(key, token.unwrap_or(default).to_owned());
        }
        let direction = match json.get("truncation_side").map(Value::as_str) {
            None | Some(Some("right")) => TruncationDirection::Right,
            Some(Some("left")) => TruncationDirection::Left,
            Some(_) => {
                let found = &json["truncation_side"];
                let expected = "\"left\" or \"right\"";
                return Err(CheckpointError::invalid(
                    &path,
                    "truncation_side",
                    expected,
                    found,
                ));
            }
        };
        let max = json.get("model_max_length").and_then(Value::as_f64);
        Ok(Self {
            lowercase: flag("do_lower_case")?.unwrap_or(true),
            strip_accents: flag("strip_accents")?,
            chinese_chars: flag("tokenize_chinese_chars")?.unwrap_or(true),
            direction,
            max_tokens: max
                .filter(|m| (1.0..UNLIMITED).contains(m))
                .map(|m| m as usize),
            special,
        })
    }
}

/// The tokenizer that transformers builds from `vocab.txt`.
pub(super) fn from_vocab(
    files: &Files,
    settings: &TokenizerSettings,
) -> Result<tokenizers::Tokenizer, CheckpointError> {
    let path = files.path("vocab.txt");
    let content = files.read("vocab.txt")?.ok_or_else(|| {
        CheckpointError::missing(files.path("tokenizer.json"), "tokenizer.json or vocab.txt")
    })?;
    let text = std::str::from_utf8(&content)
        .map_err(|error| CheckpointError::invalid(&path, "(file)", "UTF-8", error))?;
    let mut vocab = tokenizers::models::bpe::Vocab::new();
    for (token, id) in text.lines().zip(0u32..) {
        vocab.insert(token.to_owned(), id);
    }
    let special = |key: &str| settings.special[key].clone();
    let with_id = |key: &str| match vocab.get(&special(key)) {
        Some(id) => Ok((special(key), *id)),
        None => Err(CheckpointError::invalid(
            &path,
            key,
            format!("{:?}", special(key)),
            "none of that name",
        )),
    };
    let (sep, cls) = (with_id("sep_token")?, with_id("cls_token")?);
    with_id("unk_token")?;
    let known: Vec<AddedToken> = SPECIAL
        .iter()
        .filter(|(key, _)| vocab.contains_key(&special(key)))
        .map(|(key, _)| AddedToken::from(special(key), true))
        .collect();
    let invalid =
        |error| CheckpointError::invalid(&path, "(file)", "a WordPiece vocabulary", error);
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(special("unk_token"))
        .build()
        .map_err(invalid)?;
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(model));
    let normalizer = BertNormalizer::new(
        true,
        settings.chinese_chars,
        settings.strip_accents,
        settings.lowercase,
    );
    tokenizer
        .with_normalizer(Some(normalizer))
        .map_err(invalid)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    tokenizer.add_special_tokens(known).map_err(invalid)?;
    Ok(tokenizer)
}
