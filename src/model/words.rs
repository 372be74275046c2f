//! Token ids of words that have been met before.
//!
//! A BERT tokenizer cuts a text at white space and around each punctuation mark before anything
//! else, so the ids of an ASCII text are those of its words, end to end. The library defines what
//! the ids of a word are; this remembers its answer, and a text of known words costs a look-up a
//! word instead of some twenty microseconds. Whatever is not certain to be cut so (other
//! characters than ASCII, control characters, what may begin an added token) is left to the
//! library whole.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use tokenizers::tokenizer::{NormalizerWrapper, PreTokenizerWrapper};
use tokenizers::{ModelWrapper, Tokenizer};

/// Words that are remembered; when there are more, all are forgotten. A language's daily words are
/// fewer, and a client that sends nonsense takes no more than some megabytes.
const WORDS_MAX: usize = 32_768;

/// A text with this many unknown words goes to the library whole, which is quicker then.
const UNKNOWN_MAX: usize = 8;

/// Longer words are rare and not remembered.
const WORD_BYTES_MAX: usize = 32;

/// What has been met, and what is put around the ids of a text.
#[derive(Debug)]
pub(super) struct Words {
    ids: RwLock<HashMap<Box<str>, Box<[u32]>>>,
    /// Bytes that leave a text to the library.
    uncertain: [bool; 256],
    /// Ids and token types before and after a single text.
    before: Vec<(u32, u32)>,
    after: Vec<(u32, u32)>,
    /// The token type of the text itself.
    type_id: u32,
}

/// The ids of a text and its token types.
pub(super) struct Known {
    pub(super) ids: Vec<u32>,
    pub(super) type_ids: Vec<u32>,
    pub(super) truncated: bool,
}

impl Words {
    /// For `tokenizer`, if it cuts texts as BERT does.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let is_bert = matches!(
            tokenizer.get_normalizer(),
            Some(NormalizerWrapper::BertNormalizer(_))
        ) && matches!(
            tokenizer.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::BertPreTokenizer(_))
        ) && matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_));
        if !is_bert {
            return None;
        }
        let mut uncertain = [false; 256];
        for byte in 0..=u8::MAX {
            let blank = matches!(byte, b'\t' | b'\n' | b'\r');
            uncertain[usize::from(byte)] = !byte.is_ascii() || byte.is_ascii_control() && !blank;
        }
        for token in tokenizer.get_added_tokens_decoder().values() {
            let first = token.content.bytes().next()?;
            if !first.is_ascii_punctuation() || token.lstrip {
                // It may begin inside a word, or begin otherwise once its accents are gone.
                return None;
            }
            uncertain[usize::from(first)] = true;
        }
        let probe = tokenizer.encode_fast("a", true).ok()?;
        let bare = tokenizer.encode_fast("a", false).ok()?;
        let special = probe.get_special_tokens_mask();
        let start = special.iter().position(|special| *special == 0)?;
        let end = start + bare.len();
        // The text stands there once, and all else is special: a template may say otherwise.
        let outside = special[..start].iter().chain(special.get(end..)?);
        if outside.into_iter().any(|special| *special == 0) {
            return None;
        }
        let added: Vec<(u32, u32)> = probe
            .get_ids()
            .iter()
            .copied()
            .zip(probe.get_type_ids().iter().copied())
            .collect();
        if probe.get_ids().get(start..end)? != bare.get_ids() {
            return None;
        }
        Some(Self {
            ids: RwLock::default(),
            uncertain,
            before: added[..start].to_vec(),
            after: added[end..].to_vec(),
            type_id: added.get(start)?.1,
        })
    }

    /// The ids of `text` with what is put around it, cut after `max` in all; none when the library
    /// has to see the whole of it.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &str, max: usize) -> Option<Known> {
        if text.bytes().any(|byte| self.uncertain[usize::from(byte)]) {
            return None;
        }
        let around = self.before.len() + self.after.len();
        let room = max.checked_sub(around)?;
        let mut ids = Vec::with_capacity(max.min(around + text.len() / 3 + 4));
        ids.extend(self.before.iter().map(|(id, _)| *id));
        let end = self.before.len() + room;
        self.append(tokenizer, text, &mut ids, end)?;
        let truncated = ids.len() > end;
        ids.truncate(end);
        let text_end = ids.len();
        ids.extend(self.after.iter().map(|(id, _)| *id));
        let mut type_ids = vec![self.type_id; ids.len()];
        for (place, (_, type_id)) in type_ids.iter_mut().zip(&self.before) {
            *place = *type_id;
        }
        for (place, (_, type_id)) in type_ids[text_end..].iter_mut().zip(&self.after) {
            *place = *type_id;
        }
        Some(Known {
            ids,
            type_ids,
            truncated,
        })
    }

    /// Appends the ids of the words of `text`, until there are more than `end`.
    fn append(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        ids: &mut Vec<u32>,
        end: usize,
    ) -> Option<()> {
        let mut words = Cut(text);
        let mut next = words.next();
        for _ in 0..UNKNOWN_MAX {
            // One lock for all known words in a row.
            let known = self.ids.read().unwrap_or_else(PoisonError::into_inner);
            while let Some(word) = next {
                if ids.len() > end {
                    return Some(());
                }
                let Some(of_word) = known.get(word) else {
                    break;
                };
                ids.extend_from_slice(of_word);
                next = words.next();
            }
            drop(known);
            let Some(word) = next else {
                return Some(());
            };
            let encoding = tokenizer.encode_fast(word, false).ok()?;
            ids.extend_from_slice(encoding.get_ids());
            if word.len() <= WORD_BYTES_MAX {
                let mut known = self.ids.write().unwrap_or_else(PoisonError::into_inner);
                let mut forgotten = None;
                if known.len() >= WORDS_MAX {
                    forgotten = Some(std::mem::take(&mut *known));
                }
                known.insert(word.into(), encoding.get_ids().into());
                drop(known);
                // Without the lock: that takes a while.
                drop(forgotten);
            }
            next = words.next();
        }
        None
    }
}

/// The words of an ASCII text: runs between white space, punctuation marks one by one.
struct Cut<'a>(&'a str);

impl<'a> Iterator for Cut<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_ascii_start();
        let bytes = text.as_bytes();
        let first = bytes.first()?;
        let end = match first.is_ascii_punctuation() {
            true => 1,
            false => {
                let stop = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_punctuation();
                bytes.iter().position(stop).unwrap_or(bytes.len())
            }
        };
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_blanks_and_around_punctuation() {
        let words: Vec<&str> = Cut("  don't\tstop-me, now!!\n").collect();
        let expected = ["don", "'", "t", "stop", "-", "me", ",", "now", "!", "!"];
        assert_eq!(words, expected);
        assert_eq!(Cut(" \n").count(), 0);
    }
}
