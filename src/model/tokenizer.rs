//! Text to token ids, as Hugging Face's fast BERT tokenizer does it.
//!
//! Takes a text or a pair of texts, gives at most [`Tokenizer::max_tokens`] ids including
//! `[CLS]` and `[SEP]`. Safe to call from many tasks at once; never touches the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor};

use super::config::ModelConfig;
use super::vocabulary::{Settings, from_vocab};
use super::words::Words;
use super::{CheckpointError, Files, Token, tokenizer_json, tokens};

/// Of a long text, this many bytes for each token that the model takes are read first. English
/// has four to five.
const PREFIX_BYTES_PER_TOKEN: usize = 16;

/// Bytes of text that the library gets at once: it takes some three hundred bytes of memory for each, and as
/// many nanoseconds.
const WHOLE_MAX: usize = 128 << 10;

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
        "the text is longer than the {max} tokens this model takes; shorten it or allow truncation"
    )]
    TooLong {
        /// The model's limit, special tokens included.
        max: usize,
    },
    /// The model knows one token type only.
    #[error("this model was not made for pairs of texts (type_vocab_size is 1); send single texts")]
    PairUnsupported,
    /// The text is long, and this tokenizer would have to see all of it.
    #[error(
        "the text has {bytes} bytes, of which this model's tokenizer takes {max} at once, and makes too few tokens \
         of those to cut the text there; shorten it"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What the tokenizer takes.
        max: usize,
    },
    /// The checkpoint's tokenizer makes no token of the text, not even a special one.
    #[error("the tokenizer makes no tokens of the text; send a text with words")]
    NoTokens,
    /// The tokenizer library refused the text.
    #[error("the tokenizer refused the text: {0}")]
    Refused(String),
}

/// The checkpoint's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    whole: tokenizers::Tokenizer,
    words: Option<Words>,
    max_tokens: usize,
    direction: TruncationDirection,
    pairs: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or builds the same from `vocab.txt`, with `tokenizer_config.json`
    /// where there is one.
    ///
    /// # Errors
    /// The file and key that are missing or wrong; ids that the word embedding does not have.
    pub fn read(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        // The library takes some of a file at its word and panics where that is wrong (0.23.2: a
        // precompiled character map that cannot be read). No more is wrong then than the file.
        catch_unwind(AssertUnwindSafe(|| Self::build(files, config))).unwrap_or_else(|_| {
            let (json, vocab) = ("tokenizer.json", "vocab.txt");
            let path = files.path(if files.contains(json) { json } else { vocab });
            let found = "one that the tokenizer library panics on";
            Err(CheckpointError::invalid(
                path,
                "(file)",
                "a Hugging Face tokenizer",
                found,
            ))
        })
    }

    fn build(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let settings = Settings::read(files)?;
        let (path, mut whole) = match files.read("tokenizer.json")? {
            Some(content) => {
                let path = files.path("tokenizer.json");
                let tokenizer = tokenizer_json::parse(&path, &content)?;
                (path, tokenizer)
            }
            None => (files.path("vocab.txt"), from_vocab(files, &settings)?),
        };
        check_ids(&path, &whole, config.vocab_size)?;
        // Batches are ragged: padding from the file would only be computed and thrown away.
        whole.with_padding(None);
        whole
            .with_truncation(None)
            .map_err(|error| CheckpointError::invalid(&path, "truncation", "none", error))?;
        let max_tokens = settings.max_tokens.unwrap_or(config.max_positions);
        let direction = settings.direction;
        let words = Words::of(&whole, direction);
        let tokenizer = Self {
            whole,
            words,
            max_tokens: max_tokens.min(config.max_positions),
            direction,
            pairs: config.type_vocab_size > 1,
        };
        // A template may put more around a single text than around a pair.
        let special = tokenizer.added(false).max(tokenizer.added(tokenizer.pairs));
        if tokenizer.max_tokens <= special {
            return Err(CheckpointError::invalid(
                files.path("config.json"),
                "max_position_embeddings (or model_max_length in tokenizer_config.json)",
                format!("more than the {special} special tokens"),
                tokenizer.max_tokens,
            ));
        }
        tokenizer.check_probes(&path, config)?;
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
        let cut = (self.max_tokens, too_long);
        let by_words = |words: &Words| words.encode(&self.whole, text, cut);
        let encoded = self.words.as_ref().and_then(by_words);
        encoded.unwrap_or_else(|| self.encode_whole(text, too_long))
    }

    /// As [`encode`](Self::encode), by the library alone.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode); [`EncodeError::TooLarge`].
    pub fn encode_whole(&self, text: &Text, too_long: TooLong) -> Result<Encoded, EncodeError> {
        let (first, second) = match text {
            Text::Single(text) => (self.part(text)?, None),
            Text::Pair(..) if !self.pairs => return Err(EncodeError::PairUnsupported),
            Text::Pair(first, second) => (self.part(first)?, Some(self.part(second)?)),
        };
        let tokens = first.len() + second.as_ref().map_or(0, Encoding::len);
        let room = self.max_tokens - self.added(second.is_some());
        let truncated = tokens > room;
        if truncated && too_long == TooLong::Refuse {
            return Err(EncodeError::TooLong {
                max: self.max_tokens,
            });
        }
        // Not the library's own truncation in `encode`: version 0.23.2 stops at the limit in each
        // text of a pair before it compares their lengths, and may cut the wrong one.
        let params = TruncationParams {
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            direction: self.direction,
            stride: 0,
        };
        let (mut first, mut second) = truncate_encodings(first, second, &params)
            .map_err(|error| EncodeError::Refused(error.to_string()))?;
        // The library keeps what it cuts off, in pieces, and would join each piece of one text of a
        // pair with each of the other: gigabytes for two texts of some ten thousand tokens.
        first.take_overflowing();
        second.as_mut().map(Encoding::take_overflowing);
        let encoding = self
            .whole
            .post_process(first, second, true)
            .map_err(refused)?;
        if encoding.is_empty() {
            return Err(EncodeError::NoTokens);
        }
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            truncated,
        })
    }

    /// The tokens of one text without special ones: all of them, or so many from the beginning or the end
    /// that the rest will be cut off anyway.
    ///
    /// Words end at white space for every BERT tokenizer, so tokens do not depend on what stands beyond a
    /// blank; what is next to the cut is cut off itself, since there are more tokens than the model takes.
    fn part(&self, text: &str) -> Result<Encoding, EncodeError> {
        let encode = |text: &str| self.whole.encode_fast(text, false).map_err(refused);
        let mut bytes = self.max_tokens * PREFIX_BYTES_PER_TOKEN;
        while bytes.min(WHOLE_MAX) < text.len() {
            let is_last = bytes >= WHOLE_MAX;
            if let Some(part) = self.up_to_a_blank(text, bytes.min(WHOLE_MAX)) {
                let encoding = encode(part)?;
                if encoding.len() > self.max_tokens {
                    return Ok(encoding);
                }
            }
            if is_last {
                break;
            }
            bytes *= 4;
        }
        if text.len() > WHOLE_MAX {
            let (bytes, max) = (text.len(), WHOLE_MAX);
            return Err(EncodeError::TooLarge { bytes, max });
        }
        encode(text)
    }

    /// At most `bytes` of a text from the side that is kept, up to a blank; none where there is no blank.
    fn up_to_a_blank<'a>(&self, text: &'a str, bytes: usize) -> Option<&'a str> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\n');
        let content = text.as_bytes();
        match self.direction {
            TruncationDirection::Right => {
                let end = content[..bytes].iter().rposition(blank)?;
                Some(&text[..end])
            }
            TruncationDirection::Left => {
                let from = content.len() - bytes;
                let start = content[from..].iter().position(blank)?;
                Some(&text[from + start..])
            }
        }
    }

    /// Special tokens that are put around a text or a pair.
    fn added(&self, pair: bool) -> usize {
        self.whole
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair))
    }

    /// All tokens of a text, however many, with `[CLS]` and `[SEP]` when they are wanted.
    ///
    /// # Errors
    /// [`EncodeError::Refused`].
    pub fn tokens(&self, text: &str, with_special: bool) -> Result<Vec<Token>, EncodeError> {
        tokens::of(&self.whole, text, with_special)
            .map_err(|error| EncodeError::Refused(error.to_string()))
    }

    /// Whether no more of a text, or of a pair, is read than is wanted of it.
    pub fn reads_by_need(&self) -> bool {
        self.words
            .as_ref()
            .is_some_and(|words| words.has_pairs() || !self.pairs)
    }

    /// The longest sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.whole.get_vocab_size(true)
    }

    /// Encodes what is unusual, so that a missing unknown-token or a template that does not fit
    /// the embeddings shows at start-up and not in the first odd request.
    fn check_probes(&self, path: &str, config: &ModelConfig) -> Result<(), CheckpointError> {
        let odd = "\u{16FE4}\u{2F9F4} \u{1E8D6}";
        let mut probes = vec![Text::Single(String::new()), Text::Single(odd.to_owned())];
        probes.push(Text::Single("a ".repeat(2 * self.max_tokens)));
        if self.pairs {
            probes.push(Text::Pair(
                "a ".repeat(self.max_tokens),
                "a ".repeat(self.max_tokens),
            ));
        }
        for probe in probes {
            let invalid = |key: &str, expected: String, found: String| {
                CheckpointError::invalid(path, key, expected, found)
            };
            let encoded = self.encode(&probe, TooLong::Truncate).map_err(|error| {
                let expected = "tokens for every text, [UNK] and special tokens included";
                invalid("(tokens)", expected.to_owned(), error.to_string())
            })?;
            let most = |ids: &[u32]| ids.iter().copied().max().unwrap_or(0) as usize;
            for (key, found, end) in [
                ("post_processor ids", most(&encoded.ids), config.vocab_size),
                (
                    "post_processor type ids",
                    most(&encoded.type_ids),
                    config.type_vocab_size,
                ),
                (
                    "tokens of a long text",
                    encoded.ids.len(),
                    self.max_tokens + 1,
                ),
            ] {
                if found >= end {
                    return Err(invalid(key, format!("less than {end}"), found.to_string()));
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn refused(error: tokenizers::Error) -> EncodeError {
    EncodeError::Refused(error.to_string())
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
