//! `tokenizer.json`: read by the library, behind checks that the library does not make.
//!
//! Takes a file that anybody may have written, gives a tokenizer or a [`CheckpointError`]. Its size
//! bounds the memory and the time; it never ends the process.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::ModelWrapper;

use super::error::CheckpointError;

/// The longest string that may stand in a list. The library (0.23.2) puts the tokens of a Unigram
/// model, a list, into a tree as deep as the longest has bytes and frees it by recursion; a token
/// of a megabyte overflows the stack, which cannot be caught. Real ones have tens of bytes.
const LISTED_BYTES_MAX: usize = 4096;

/// The longest word that a WordPiece model may take apart, where 100 is the default: the time goes
/// with the square of it.
const WORD_CHARS_MAX: usize = 512;

/// Reads the content of the file that a user would name `path`.
///
/// # Errors
/// When it is no tokenizer, or one that could exhaust the stack or the time.
pub(super) fn parse(path: &str, content: &[u8]) -> Result<tokenizers::Tokenizer, CheckpointError> {
    let invalid = |error: &dyn fmt::Display| {
        CheckpointError::invalid(path, "(file)", "a Hugging Face tokenizer", error)
    };
    let Strings { listed, .. } =
        serde_json::from_slice(content).map_err(|error| invalid(&error))?;
    if listed > LISTED_BYTES_MAX {
        return Err(CheckpointError::invalid(
            path,
            "model.vocab",
            format!("tokens of at most {LISTED_BYTES_MAX} bytes"),
            format!("one of {listed}"),
        ));
    }
    let tokenizer = tokenizers::Tokenizer::from_bytes(content).map_err(|error| invalid(&error))?;
    if let ModelWrapper::WordPiece(model) = tokenizer.get_model()
        && model.max_input_chars_per_word > WORD_CHARS_MAX
    {
        return Err(CheckpointError::invalid(
            path,
            "model.max_input_chars_per_word",
            format!("at most {WORD_CHARS_MAX}"),
            model.max_input_chars_per_word,
        ));
    }
    Ok(tokenizer)
}

/// Lengths of the strings of a JSON value, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Strings {
    /// Its own, if it is a string.
    own: usize,
    /// The longest of those in it that stand in a list.
    listed: usize,
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Measure)
    }
}

struct Measure;

impl<'de> Visitor<'de> for Measure {
    type Value = Strings;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strings, E> {
        Ok(Strings::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strings, E> {
        Ok(Strings::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strings, E> {
        Ok(Strings::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Strings, E> {
        Ok(Strings::default())
    }

    fn visit_unit<E>(self) -> Result<Strings, E> {
        Ok(Strings::default())
    }

    fn visit_str<E>(self, value: &str) -> Result<Strings, E> {
        let own = value.len();
        Ok(Strings { own, listed: 0 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strings, A::Error> {
        let mut listed = 0;
        while let Some(item) = items.next_element::<Strings>()? {
            listed = listed.max(item.own).max(item.listed);
        }
        Ok(Strings { own: 0, listed })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strings, A::Error> {
        let mut listed = 0;
        while let Some((_, value)) = entries.next_entry::<IgnoredAny, Strings>()? {
            listed = listed.max(value.listed);
        }
        Ok(Strings { own: 0, listed })
    }
}
