//! `tokenizer.json`: parsed by the library, after checks that the library does not perform.
//!
//! Takes an untrusted file, gives a tokenizer or a [`CheckpointError`]. Memory and time are
//! bounded by the file's size. Never ends the process.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::{AddedToken, ModelWrapper};

use super::error::CheckpointError;

/// The longest string in a list. The library (0.23.2) puts the tokens of a Unigram
/// model, a list, into a tree whose depth is the length of the longest token in bytes, and frees it by recursion. A token
/// of a megabyte overflows the stack, which cannot be caught. Real tokens have tens of bytes.
const LISTED_BYTES_MAX: usize = 4096;

/// The longest word that a WordPiece model may split. The default is 100. Time is quadratic in it.
const WORD_CHARS_MAX: usize = 512;

/// Parses a file's content. `path` names the file in errors.
///
/// # Errors
/// When it is not a tokenizer, or one that could overflow the stack or take too long.
pub(super) fn parse(path: &str, content: &[u8]) -> Result<tokenizers::Tokenizer, CheckpointError> {
    let invalid = |error: &dyn fmt::Display| {
        CheckpointError::invalid(path, "(file)", "a Hugging Face tokenizer", error)
    };
    let StringLengths { listed, .. } =
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

/// The added tokens that a file lists, by their ids in it. The last of an id counts.
///
/// # Errors
/// When they are not listed as the library writes them.
pub(super) fn added_tokens(
    path: &str,
    content: &[u8],
) -> Result<BTreeMap<u64, AddedToken>, CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Listing {
        #[serde(default)]
        added_tokens: Vec<Listed>,
    }
    #[derive(serde::Deserialize)]
    struct Listed {
        id: u64,
        #[serde(flatten)]
        token: AddedToken,
    }
    let Listing { added_tokens } = serde_json::from_slice(content).map_err(|error| {
        CheckpointError::invalid(path, "added_tokens", "a list of added tokens", error)
    })?;
    let listed = added_tokens.into_iter();
    Ok(listed.map(|listed| (listed.id, listed.token)).collect())
}

/// Lengths of strings in a JSON value, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct StringLengths {
    /// Length of the value itself, if it is a string.
    own: usize,
    /// Length of the longest string in a list within the value.
    listed: usize,
}

impl<'de> Deserialize<'de> for StringLengths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringLengthVisitor)
    }
}

struct StringLengthVisitor;

impl<'de> Visitor<'de> for StringLengthVisitor {
    type Value = StringLengths;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<StringLengths, E> {
        Ok(StringLengths::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<StringLengths, E> {
        Ok(StringLengths::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<StringLengths, E> {
        Ok(StringLengths::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<StringLengths, E> {
        Ok(StringLengths::default())
    }

    fn visit_unit<E>(self) -> Result<StringLengths, E> {
        Ok(StringLengths::default())
    }

    fn visit_str<E>(self, value: &str) -> Result<StringLengths, E> {
        let own = value.len();
        Ok(StringLengths { own, listed: 0 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StringLengths, A::Error> {
        let mut listed = 0;
        while let Some(item) = items.next_element::<StringLengths>()? {
            listed = listed.max(item.own).max(item.listed);
        }
        Ok(StringLengths { own: 0, listed })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<StringLengths, A::Error> {
        let mut listed = 0;
        while let Some((_, value)) = entries.next_entry::<IgnoredAny, StringLengths>()? {
            listed = listed.max(value.listed);
        }
        Ok(StringLengths { own: 0, listed })
    }
}
