//! Words to pieces by the library's vocabulary: greedy, the longest piece first (WordPiece).

use tokenizers::tokenizer::Model as _;
use tokenizers::{ModelWrapper, Tokenizer};

/// What the model of a tokenizer says beside its vocabulary, which stays where it is.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Put before a piece that does not begin a word.
    prefix: String,
    /// Bytes of the longest piece, with the prefix.
    longest: usize,
    /// What a word is that has no pieces.
    unknown: u32,
    /// Characters of a word; a longer one has no pieces.
    pub(super) chars_max: usize,
}

impl Pieces {
    /// Of a tokenizer with a WordPiece model.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else {
            return None;
        };
        // The library calls everything unknown then, marks included.
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

    /// Appends the ids of a word that is too long to have pieces.
    pub(super) fn append_unknown(&self, ids: &mut Vec<u32>) {
        ids.push(self.unknown);
    }

    /// Appends the ids of a word of at most [`chars_max`](Self::chars_max) characters.
    ///
    /// The library would look for a piece from each place to the end of the word first, however long the
    /// longest piece of the vocabulary is: the square of a word's length, with a copy for each look.
    pub(super) fn append(&self, model: &ModelWrapper, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word.to_owned();
        // Bytes of `rest` that are the prefix and not the word's.
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

    /// The longest piece that `rest` begins with, by its end, and its id.
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
