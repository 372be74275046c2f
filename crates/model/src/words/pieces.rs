//! WordPiece: splits words into the longest pieces of the library's vocabulary, greedily.

use tokenizers::tokenizer::Model as _;
use tokenizers::{ModelWrapper, Tokenizer};

/// The settings of a tokenizer's WordPiece model. The vocabulary stays in the tokenizer.
#[derive(Debug)]
pub(super) struct WordPieces {
    /// Prefix of a piece that does not begin a word.
    prefix: String,
    /// Bytes of the longest piece, including the prefix.
    longest: usize,
    /// Id of a word that cannot be split.
    unknown: u32,
    /// Most characters of a word. A longer word is unknown.
    pub(super) chars_max: usize,
}

impl WordPieces {
    /// The settings of a tokenizer. `None` if its model is not WordPiece.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else {
            return None;
        };
        // With 0, the library makes everything unknown, punctuation included.
        if model.max_input_chars_per_word == 0 {
            return None;
        }
        Some(Self {
            prefix: model.continuing_subword_prefix.clone(),
            longest: model.get_vocab().keys().map(String::len).max()?,
            unknown: model.token_to_id(&model.unk_token)?,
            chars_max: model.max_input_chars_per_word,
        })
    }

    /// Appends the id of a word that is too long.
    pub(super) fn append_unknown(&self, ids: &mut Vec<u32>) {
        ids.push(self.unknown);
    }

    /// Appends the ids of a word of at most [`chars_max`](Self::chars_max) characters.
    ///
    /// The library first tries the whole rest of the word at each position, however short the longest piece of the
    /// vocabulary is. That takes time quadratic in the word's length, with a copy for each attempt.
    pub(super) fn append(&self, model: &ModelWrapper, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word.to_owned();
        // Bytes at the start of `rest` that are the prefix, not the word.
        let mut prefixed = 0;
        while rest.len() > prefixed {
            let Some((end, id)) = self.longest(model, &rest, prefixed) else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest.replace_range(..end, &self.prefix);
            prefixed = self.prefix.len();
        }
    }

    /// The longest piece at the start of `rest`: its end and its id.
    fn longest(&self, model: &ModelWrapper, rest: &str, prefixed: usize) -> Option<(usize, u32)> {
        let mut end = rest.floor_char_boundary(self.longest);
        while end > prefixed {
            if let Some(id) = model.token_to_id(&rest[..end]) {
                return Some((end, id));
            }
            end = rest.floor_char_boundary(end - 1);
        }
        None
    }
}
