//! Text to token ids, as Hugging Face's fast BERT tokenizer does it.
//!
//! Takes a text or a pair of texts, gives at most [`Tokenizer::max_tokens`] ids including
//! `[CLS]` and `[SEP]`. Safe to call from many tasks at once; never touches the engine.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy};
use tokenizers::{AddedToken, EncodeInput, Encoding, ModelWrapper};

use super::config::ModelConfig;
use super::{CheckpointError, Files};

/// `model_max_length` values from here on mean "no limit" (transformers writes 1e30).
const UNLIMITED: f64 = 1e9;

/// What to classify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// One text.
    Single(String),
    /// Two texts, joined by `[SEP]` and told apart by their token types.
    Pair(String, String),
}

impl Text {
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Single(text) => text.len(),
            Self::Pair(first, second) => first.len() + second.len(),
        }
    }
}

/// What to do with a text that is longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// Keep the beginning, as Hugging Face pipelines do.
    Truncate,
    /// Refuse it.
    Refuse,
}

/// Token ids of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Ids, `[CLS]` first.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second; as long as `ids`.
    pub type_ids: Vec<u32>,
    /// Whether the end of the text was cut off.
    pub truncated: bool,
}

/// A text that cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The text is too long and was not to be truncated.
    #[error(
        "the text is {tokens} tokens long, this model takes {max}; shorten it or allow truncation"
    )]
    TooLong {
        /// Tokens including the special ones.
        tokens: usize,
        /// The model's limit.
        max: usize,
    },
    /// The model knows one token type only.
    #[error("this model was not made for pairs of texts (type_vocab_size is 1); send single texts")]
    PairUnsupported,
    /// The tokenizer library refused the text.
    #[error("the tokenizer refused the text: {0}")]
    Refused(String),
}

/// The checkpoint's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    whole: tokenizers::Tokenizer,
    truncating: tokenizers::Tokenizer,
    max_tokens: usize,
    pairs: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or builds the same from `vocab.txt`, with `tokenizer_config.json`
    /// where there is one.
    ///
    /// # Errors
    /// The file and key that are missing or wrong; ids that the word embedding does not have.
    pub fn read(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let settings = Settings::read(files)?;
        let (path, mut whole) = match files.read("tokenizer.json")? {
            Some(content) => {
                let path = files.path("tokenizer.json");
                let tokenizer = tokenizers::Tokenizer::from_bytes(&content).map_err(|error| {
                    CheckpointError::invalid(&path, "(file)", "a Hugging Face tokenizer", error)
                })?;
                (path, tokenizer)
            }
            None => (files.path("vocab.txt"), from_vocab(files, &settings)?),
        };
        check_ids(&path, &whole, config.vocab_size)?;
        let max_tokens = settings
            .max_tokens
            .map_or(config.max_positions, |max| max.min(config.max_positions));
        let refused = |error| {
            CheckpointError::invalid(
                &path,
                "truncation",
                format!("room for {max_tokens} tokens"),
                error,
            )
        };
        // Batches are ragged: padding from the file would only be computed and thrown away.
        whole.with_padding(None);
        whole.with_truncation(None).map_err(refused)?;
        let special = whole.encode("", true).map_or(0, |encoding| encoding.len());
        if max_tokens <= special + 1 {
            let expected = format!("more than {} positions", special + 1);
            let path = files.path("config.json");
            return Err(CheckpointError::invalid(
                path,
                "max_position_embeddings",
                expected,
                max_tokens,
            ));
        }
        let mut truncating = whole.clone();
        let truncation = TruncationParams {
            max_length: max_tokens,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        truncating
            .with_truncation(Some(truncation))
            .map_err(refused)?;
        let tokenizer = Self {
            whole,
            truncating,
            max_tokens,
            pairs: config.type_vocab_size > 1,
        };
        tokenizer.check_unknown(&path)?;
        Ok(tokenizer)
    }

    /// Encodes one input with `[CLS]` and `[SEP]`.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] under [`TooLong::Refuse`]; [`EncodeError::PairUnsupported`].
    pub fn encode(&self, text: &Text, too_long: TooLong) -> Result<Encoded, EncodeError> {
        if !self.pairs && matches!(text, Text::Pair(..)) {
            return Err(EncodeError::PairUnsupported);
        }
        let input = || match text {
            Text::Single(text) => EncodeInput::Single(text.as_str().into()),
            Text::Pair(first, second) => {
                EncodeInput::Dual(first.as_str().into(), second.as_str().into())
            }
        };
        let refused = |error: tokenizers::Error| EncodeError::Refused(error.to_string());
        let mut encoding = self.whole.encode_fast(input(), true).map_err(refused)?;
        let tokens = encoding.len();
        let truncated = tokens > self.max_tokens;
        if truncated {
            if too_long == TooLong::Refuse {
                return Err(EncodeError::TooLong {
                    tokens,
                    max: self.max_tokens,
                });
            }
            encoding = self.truncate(text).map_err(refused)?;
        }
        let ids = encoding.get_ids().to_vec();
        Ok(Encoded {
            ids,
            type_ids: encoding.get_type_ids().to_vec(),
            truncated,
        })
    }

    /// Keeps the beginning of a text, or of both texts of a pair.
    fn truncate(&self, text: &Text) -> tokenizers::Result<Encoding> {
        match text {
            Text::Single(text) => self.truncating.encode_fast(text.as_str(), true),
            // tokenizers 0.23.2 stops at the limit in each text before it compares their lengths,
            // so of two long texts it may give the odd token to the wrong one.
            Text::Pair(first, second) => {
                let first = self.whole.encode_fast(first.as_str(), false)?;
                let second = self.whole.encode_fast(second.as_str(), false)?;
                self.truncating.post_process(first, Some(second), true)
            }
        }
    }

    /// The longest sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.whole.get_vocab_size(true)
    }

    /// Encodes a character that no vocabulary holds, so that a missing unknown-token shows at
    /// start-up and not in the first request with an odd letter.
    fn check_unknown(&self, path: &str) -> Result<(), CheckpointError> {
        let odd = Text::Single("\u{16FE4}\u{2F9F4} \u{1E8D6}".to_owned());
        self.encode(&odd, TooLong::Truncate)
            .map(|_| ())
            .map_err(|error| {
                CheckpointError::invalid(path, "unk_token", "a token of the vocabulary", error)
            })
    }
}

/// Refuses a tokenizer that can make ids the embedding has no row for.
fn check_ids(
    path: &str,
    tokenizer: &tokenizers::Tokenizer,
    vocab_size: usize,
) -> Result<(), CheckpointError> {
    let vocab = tokenizer.get_vocab(true);
    match vocab.iter().max_by_key(|(_, id)| **id) {
        Some((token, id)) if *id as usize >= vocab_size => Err(CheckpointError::invalid(
            path,
            format!("{token:?}"),
            format!("an id below {vocab_size} (vocab_size in config.json)"),
            id,
        )),
        Some(_) => Ok(()),
        None => Err(CheckpointError::invalid(
            path,
            "vocab",
            "at least one token",
            "none",
        )),
    }
}

/// What `tokenizer_config.json` says, with the defaults of Hugging Face's `BertTokenizer`.
struct Settings {
    lowercase: bool,
    strip_accents: Option<bool>,
    chinese_chars: bool,
    max_tokens: Option<usize>,
    special: HashMap<&'static str, String>,
}

const SPECIAL: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

impl Settings {
    fn read(files: &Files) -> Result<Self, CheckpointError> {
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
            // Either the token itself or an object that describes it.
            let token = json
                .get(key)
                .and_then(|v| v.as_str().or(v.get("content")?.as_str()));
            special.insert(key, token.unwrap_or(default).to_owned());
        }
        let max = json.get("model_max_length").and_then(Value::as_f64);
        Ok(Self {
            lowercase: flag("do_lower_case")?.unwrap_or(true),
            strip_accents: flag("strip_accents")?,
            chinese_chars: flag("tokenize_chinese_chars")?.unwrap_or(true),
            max_tokens: max
                .filter(|m| (1.0..UNLIMITED).contains(m))
                .map(|m| m as usize),
            special,
        })
    }
}

/// The tokenizer that transformers would make of `vocab.txt`.
fn from_vocab(
    files: &Files,
    settings: &Settings,
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
