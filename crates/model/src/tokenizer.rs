//! Text to token ids, as with Hugging Face's `AutoTokenizer`.
//!
//! Takes a text or a pair of texts, gives at most [`Tokenizer::max_tokens`] ids including
//! `[CLS]` and `[SEP]`. Can be called from many tasks at a time. Never touches the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor};

use super::config::ModelConfig;
use super::encoding::{EncodeError, Encoded, Text, TooLong};
use super::error::CheckpointError;
use super::files::Files;
use super::tokenizer_build::{self, BuiltTokenizer};
use super::tokenizer_config::TokenizerConfig;
use super::tokenizer_report::TokenizerReport;
use super::tokens::{self, Token};
use super::words::IncrementalTokenizer;

/// Bytes per token of the model's limit that are read first of a long text. English
/// has four to five bytes per token.
const PREFIX_BYTES_PER_TOKEN: usize = 16;

/// Most bytes of text that the library gets in one call. It takes about three hundred bytes of memory and three hundred
/// nanoseconds per byte.
const WHOLE_MAX: usize = 128 << 10;

/// The checkpoint's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    /// The library's tokenizer, which reads whole texts.
    library: tokenizers::Tokenizer,
    /// `None` if only the library can tokenize as the checkpoint requires.
    incremental: Option<IncrementalTokenizer>,
    max_tokens: usize,
    direction: TruncationDirection,
    /// Whether the model gets token types. Otherwise all are 0.
    token_types: bool,
    pairs: bool,
    /// Whether an added token contains a blank.
    blank_in_token: bool,
    /// Added tokens that take the blanks after them.
    blanks_after: Vec<String>,
    /// An id that texts must not contain, because the model would count their positions differently.
    uncounted: Option<u32>,
    report: TokenizerReport,
}

impl Tokenizer {
    /// Builds the tokenizer from `tokenizer.json` or vocabulary files, `tokenizer_config.json` and the files beside it.
    ///
    /// # Errors
    /// The file and key that are missing or wrong, or an id without a row in the word embedding.
    pub fn read(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        // The library does not validate all of a file and panics on some errors (0.23.2: on an invalid precompiled
        // character map). After such a panic only the file is invalid, nothing else.
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
        let settings = TokenizerConfig::read(files, config)?;
        let BuiltTokenizer {
            tokenizer: mut library,
            path,
            direction,
            report,
        } = tokenizer_build::build(files, &settings)?;
        // Batches are ragged, so padding would be computed for nothing.
        library.with_padding(None);
        library
            .with_truncation(None)
            .map_err(|error| CheckpointError::invalid(&path, "truncation", "none", error))?;
        let max_tokens = settings.max_tokens.unwrap_or(config.max_positions);
        let incremental = match settings.split_special_tokens {
            // It finds special tokens in texts.
            true => None,
            false => IncrementalTokenizer::new(&library, direction),
        };
        let token_types = settings.token_types;
        let added = library.get_added_tokens_decoder();
        let has_blank = |token: &tokenizers::AddedToken| token.content.contains([' ', '\n']);
        let blank_in_token = added.values().any(has_blank);
        let added = added.into_values();
        let mut tokenizer = Self {
            library,
            incremental,
            max_tokens: max_tokens.min(config.max_positions),
            direction,
            token_types,
            pairs: true,
            report,
            blank_in_token,
            blanks_after: added
                .filter(|token| token.rstrip)
                .map(|token| token.content)
                .collect(),
            uncounted: config.uncounted_id().and_then(|id| u32::try_from(id).ok()),
        };
        tokenizer.check_ids(&path, config.vocab_size)?;
        tokenizer.pairs = tokenizer.has_types_for_pairs(config.type_vocab_size);
        // A template may add more tokens to a single text than to a pair.
        let special = tokenizer
            .special_tokens(false)
            .max(tokenizer.special_tokens(tokenizer.pairs));
        if tokenizer.max_tokens <= special {
            let positions = config.family.keys.max_positions.name;
            return Err(CheckpointError::invalid(
                files.path("config.json"),
                format!("{positions} (or model_max_length in tokenizer_config.json)"),
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
        let (library, max) = (&self.library, self.max_tokens);
        let encode =
            |tokenizer: &IncrementalTokenizer| tokenizer.encode(library, text, max, too_long);
        let encoded = self.incremental.as_ref().and_then(encode);
        let encoded = encoded.unwrap_or_else(|| self.encode_with_library(text, too_long))?;
        self.for_model(encoded)
    }

    /// Like [`encode`](Self::encode), but with the library alone.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`EncodeError::TooLarge`].
    pub fn encode_whole(&self, text: &Text, too_long: TooLong) -> Result<Encoded, EncodeError> {
        self.for_model(self.encode_with_library(text, too_long)?)
    }

    /// What the model gets.
    fn for_model(&self, mut encoded: Encoded) -> Result<Encoded, EncodeError> {
        if let Some(id) = self.uncounted.filter(|id| encoded.ids.contains(id)) {
            let token = self.library.id_to_token(id).unwrap_or_default();
            return Err(EncodeError::Padding { token });
        }
        if !self.token_types {
            encoded.type_ids.fill(0);
        }
        Ok(encoded)
    }

    fn encode_with_library(&self, text: &Text, too_long: TooLong) -> Result<Encoded, EncodeError> {
        let room = self.max_tokens - self.special_tokens(matches!(text, Text::Pair(..)));
        let (first, second) = match text {
            Text::Single(text) => (self.encode_needed(text)?, None),
            Text::Pair(..) if !self.pairs => return Err(EncodeError::PairUnsupported),
            Text::Pair(first, second) => {
                let mut both = [self.encode_needed(first)?, self.encode_needed(second)?];
                // Both are cut, and the longer one keeps the odd token.
                let is_close = both.iter().all(|encoding| encoding.len() > room / 2);
                if room % 2 == 1 && is_close {
                    both = [self.encode_all(first)?, self.encode_all(second)?];
                }
                let [first, second] = both;
                (first, Some(second))
            }
        };
        let tokens = first.len() + second.as_ref().map_or(0, Encoding::len);
        let truncated = tokens > room;
        if truncated && too_long == TooLong::Refuse {
            return Err(EncodeError::TooLong {
                max: self.max_tokens,
            });
        }
        // The truncation in the library's `encode` (0.23.2) stops at the limit in each
        // text of a pair before it compares their lengths, and may truncate the wrong one.
        let params = TruncationParams {
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            direction: self.direction,
            stride: 0,
        };
        let (mut first, mut second) = truncate_encodings(first, second, &params)
            .map_err(|error| EncodeError::Refused(error.to_string()))?;
        // The library keeps the truncated parts and would join each part of one text of a
        // pair with each part of the other: gigabytes for two texts of some ten thousand tokens.
        first.take_overflowing();
        second.as_mut().map(Encoding::take_overflowing);
        let encoding = self
            .library
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

    /// The tokens of a text without special tokens: all, or more than the model takes from the side that truncation
    /// keeps.
    ///
    /// Words end at white space for the tokenizers of all families, so tokens do not depend on the text beyond a
    /// blank, unless an added token has one. A tokenizer that differs affects only tokens next to the cut, which are
    /// truncated.
    fn encode_needed(&self, text: &str) -> Result<Encoding, EncodeError> {
        let encode = |text: &str| self.library.encode_fast(text, false).map_err(refused);
        let mut bytes = self.max_tokens * PREFIX_BYTES_PER_TOKEN;
        while !self.blank_in_token && bytes.min(WHOLE_MAX) < text.len() {
            let is_last = bytes >= WHOLE_MAX;
            if let Some(part) = self.cut_at_blank(text, bytes.min(WHOLE_MAX)) {
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
        self.encode_all(text)
    }

    /// All tokens of a text without special tokens.
    fn encode_all(&self, text: &str) -> Result<Encoding, EncodeError> {
        if text.len() > WHOLE_MAX {
            let (bytes, max) = (text.len(), WHOLE_MAX);
            return Err(EncodeError::TooLarge { bytes, max });
        }
        self.library.encode_fast(text, false).map_err(refused)
    }

    /// At most `bytes` of a text from the side that truncation keeps, up to the first of some blanks. `None` if there are
    /// none.
    ///
    /// Several blanks may make a token together, and an added token may take those around it.
    fn cut_at_blank<'a>(&self, text: &'a str, bytes: usize) -> Option<&'a str> {
        let is_blank = |place: usize| matches!(text.as_bytes()[place], b' ' | b'\n');
        let is_first =
            |place: &usize| is_blank(*place) && !text[..*place].ends_with(char::is_whitespace);
        match self.direction {
            TruncationDirection::Right => {
                let end = (1..bytes).rev().find(is_first)?;
                Some(&text[..end])
            }
            TruncationDirection::Left => {
                let takes_blanks = |place: &usize| {
                    let mut tokens = self.blanks_after.iter();
                    tokens.any(|token| text[..*place].ends_with(&**token))
                };
                let from = text.len() - bytes;
                let mut places = from..text.len();
                let start = places.find(|place| is_first(place) && !takes_blanks(place))?;
                Some(&text[start..])
            }
        }
    }

    /// Whether the model has all token types that a pair gets: a template may give both texts the same.
    fn has_types_for_pairs(&self, types: usize) -> bool {
        if types > 1 || !self.token_types {
            return true;
        }
        let pair = self.library.encode_fast(("a", "a"), true);
        pair.is_ok_and(|pair| pair.get_type_ids().iter().all(|type_id| *type_id == 0))
    }

    /// Number of special tokens around a text or a pair.
    fn special_tokens(&self, pair: bool) -> usize {
        self.library
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair))
    }

    /// All tokens of a text, without a limit. `[CLS]` and `[SEP]` are included if `with_special` is set.
    ///
    /// # Errors
    /// [`EncodeError::Refused`].
    pub fn tokens(&self, text: &str, with_special: bool) -> Result<Vec<Token>, EncodeError> {
        tokens::of(&self.library, text, with_special)
            .map_err(|error| EncodeError::Refused(error.to_string()))
    }

    /// Whether texts and pairs are read only as far as their tokens are needed.
    pub fn reads_by_need(&self) -> bool {
        self.incremental
            .as_ref()
            .is_some_and(|tokenizer| tokenizer.has_pairs() || !self.pairs)
    }

    #[cfg(test)]
    pub(super) fn library(&self) -> &tokenizers::Tokenizer {
        &self.library
    }

    /// How it came about.
    pub fn report(&self) -> &TokenizerReport {
        &self.report
    }

    /// The longest sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.library.get_vocab_size(true)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "`map_err` passes it by value"
)]
fn refused(error: tokenizers::Error) -> EncodeError {
    EncodeError::Refused(error.to_string())
}

mod checks;
