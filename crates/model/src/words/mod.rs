//! Incremental tokenization: texts to token ids word by word, only as far as they are needed.
//!
//! The library processes a whole text in each step and records the source of every character. It takes about
//! three hundred bytes of memory per byte of text, all before the first token is known. For a text that is
//! truncated after a few hundred tokens this work is wasted, and clients can send megabytes.
//!
//! Here [`segmenter`] splits a text into words from its beginning until there are enough tokens. The library defines the
//! result for each character ([`char_map`]), word ([`pieces`]) and added token ([`added`]), and the tokens around a
//! text ([`template`]). Each is looked up once. Words and their ids are cached.

mod added;
mod char_map;
mod pieces;
mod segmenter;
mod template;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationDirection;

use self::added::AddedTokens;
use self::char_map::{CharMap, CharMapping, OutputChar};
use self::pieces::WordPieces;
use self::segmenter::{Segment, Segmenter, is_boundary};
use self::template::{Template, TemplatedIds};
use super::encoding::{EncodeError, Encoded, Text, TooLong};

/// Capacity of the word cache. When it is full, it is emptied. The everyday words of a language are
/// fewer, and a client that sends nonsense fills no more than some megabytes.
const WORDS_MAX: usize = 32_768;

/// Most words that one text adds to the cache. A text with more new words is unlikely to resemble others.
const NEW_MAX: usize = 8;

/// Longest word in the cache. Longer words are rare.
const WORD_BYTES_MAX: usize = 32;

/// Tokens of each text of a pair that are counted, at least. If a pair is too long, the longer text is truncated first,
/// so both lengths matter. If both are longer than this, only an odd token depends on which is longer.
const PAIR_TOKENS: usize = 4096;

/// Bytes per token that are read first when the end of a text is kept.
const BYTES_A_TOKEN: usize = 16;

/// A tokenizer that reads texts from their beginning and stops when it has enough tokens.
#[derive(Debug)]
pub(super) struct IncrementalTokenizer {
    char_map: CharMap,
    added: AddedTokens,
    pieces: WordPieces,
    /// Cached words with their ids.
    known: RwLock<HashMap<Box<str>, Box<[u32]>>>,
    direction: TruncationDirection,
    single: Template,
    /// `None` if only the library can process pairs.
    pair: Option<Template>,
}

/// How much of a text is needed.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// Ids to return at most.
    keep: usize,
    /// Tokens to count. Reading stops after more than this many. At least `keep`.
    count: usize,
}

/// The ids of a text, from the side that truncation keeps.
#[derive(Debug)]
struct KeptIds {
    ids: Vec<u32>,
    /// Tokens of the text, as far as it was read.
    seen: usize,
}

impl KeptIds {
    /// The first or the last `count` ids, depending on `direction`.
    fn truncated(&self, count: usize, direction: TruncationDirection) -> &[u32] {
        let count = count.min(self.ids.len());
        match direction {
            TruncationDirection::Right => &self.ids[..count],
            TruncationDirection::Left => &self.ids[self.ids.len() - count..],
        }
    }
}

impl IncrementalTokenizer {
    /// An incremental tokenizer with the results of `tokenizer`. Truncation is in `direction`.
    ///
    /// `None` if `tokenizer` does not split texts into words as BERT does.
    pub(super) fn new(tokenizer: &Tokenizer, direction: TruncationDirection) -> Option<Self> {
        let words = Self {
            single: Template::single(tokenizer)?,
            pair: Template::pair(tokenizer),
            direction,
            char_map: CharMap::of(tokenizer)?,
            added: AddedTokens::of(tokenizer)?,
            pieces: WordPieces::of(tokenizer)?,
            known: RwLock::default(),
        };
        words.fits_fast_path().then_some(words)
    }

    /// Whether ASCII characters are mapped as the segmenter's fast path assumes.
    fn fits_fast_path(&self) -> bool {
        (0..128_u8).all(|byte| {
            let char = char::from(byte);
            match self.char_map.mapping(char) {
                CharMapping::One(OutputChar::InWord(_)) => {
                    byte.is_ascii_alphanumeric() || !is_boundary(byte)
                }
                CharMapping::One(OutputChar::Isolated(same)) => {
                    byte.is_ascii_punctuation() && same == char
                }
                CharMapping::One(OutputChar::Separator) => !byte.is_ascii_graphic(),
                _ => !byte.is_ascii_graphic() && !is_boundary(byte),
            }
        })
    }

    /// Whether pairs are supported.
    pub(super) fn has_pairs(&self) -> bool {
        self.pair.is_some()
    }

    /// Encodes `text` with special tokens, at most `max` tokens in all.
    ///
    /// `None` if only the library can process the text.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &Text,
        max: usize,
        too_long: TooLong,
    ) -> Option<Result<Encoded, EncodeError>> {
        let template = match text {
            Text::Single(_) => &self.single,
            Text::Pair(..) => self.pair.as_ref()?,
        };
        let room = max.checked_sub(template.len())?;
        let (first, second) = match text {
            Text::Single(text) => {
                let demand = Demand {
                    keep: room,
                    count: room,
                };
                (self.read(tokenizer, text, demand)?, None)
            }
            Text::Pair(first, second) => {
                let count = room.max(PAIR_TOKENS);
                let read = |text: &str, count| {
                    let demand = Demand { keep: room, count };
                    self.read(tokenizer, text, demand)
                };
                let mut both = [read(first, count)?, read(second, count)?];
                // The longer one keeps the odd token.
                if room % 2 == 1 && both.iter().all(|ids| ids.seen > count) {
                    both = [read(first, all(first))?, read(second, all(second))?];
                }
                let [first, second] = both;
                (first, Some(second))
            }
        };
        let seen = [first.seen, second.as_ref().map_or(0, |second| second.seen)];
        let truncated = seen.iter().sum::<usize>() > room;
        if truncated && too_long == TooLong::Refuse {
            return Some(Err(EncodeError::TooLong { max }));
        }
        let [of_first, of_second] = if truncated {
            longest_first(seen, room)
        } else {
            seen
        };
        let mut texts = vec![first.truncated(of_first, self.direction)];
        texts.extend(
            second
                .iter()
                .map(|second| second.truncated(of_second, self.direction)),
        );
        let TemplatedIds { ids, type_ids } = template.apply(&texts);
        if ids.is_empty() {
            return Some(Err(EncodeError::NoTokens));
        }
        Some(Ok(Encoded {
            ids,
            type_ids,
            truncated,
        }))
    }

    /// Reads a text as far as `demand` requires. `None` if only the library can process it.
    fn read(&self, tokenizer: &Tokenizer, text: &str, demand: Demand) -> Option<KeptIds> {
        let Demand { keep, count } = demand;
        match self.direction {
            TruncationDirection::Right => {
                let mut ids = Vec::with_capacity(keep.min(text.len() / 3 + 4));
                self.append(tokenizer, text, &mut ids, |ids| ids.len() <= count)?;
                let seen = ids.len();
                ids.truncate(keep);
                Some(KeptIds { ids, seen })
            }
            TruncationDirection::Left => {
                let mut bytes = BYTES_A_TOKEN * (count + 1);
                loop {
                    let start = self.boundary_in_last(bytes, text);
                    let kept = self.last_ids(tokenizer, &text[start..], keep)?;
                    if start == 0 || kept.seen > count {
                        return Some(kept);
                    }
                    bytes *= 4;
                }
            }
        }
    }

    /// A position in the last `bytes` of a text such that the tokens after it do not depend on the text before it. 0
    /// if there is none.
    fn boundary_in_last(&self, bytes: usize, text: &str) -> usize {
        let Some(from) = text.len().checked_sub(bytes) else {
            return 0;
        };
        let from = text.ceil_char_boundary(from);
        let starts_word = |char: char| {
            if let Some(byte) = u8::try_from(char).ok().filter(u8::is_ascii) {
                return is_boundary(byte) && !self.added.contains_byte(byte);
            }
            let mut chars = Vec::new();
            if let CharMapping::Many { expansion, .. } = self.char_map.mapping(char) {
                self.char_map.expand(expansion, &mut chars);
            }
            chars.first() == Some(&OutputChar::Separator)
        };
        let found = text[from..]
            .char_indices()
            .find(|(_, char)| starts_word(*char));
        found.map_or(0, |(offset, _)| from + offset)
    }

    /// The last `max` ids of a text, which is read to its end.
    fn last_ids(&self, tokenizer: &Tokenizer, text: &str, max: usize) -> Option<KeptIds> {
        let (mut ids, mut dropped) = (Vec::new(), 0);
        self.append(tokenizer, text, &mut ids, |ids| {
            let surplus = ids.len().saturating_sub(max);
            // Drains rarely, so that each id moves once or twice.
            if surplus > max + 1024 {
                ids.drain(..surplus);
                dropped += surplus;
            }
            true
        })?;
        let surplus = ids.len().saturating_sub(max);
        ids.drain(..surplus);
        let seen = dropped + surplus + ids.len();
        Some(KeptIds { ids, seen })
    }

    /// Appends the ids of `text` word by word, as long as `wants_more` returns true. `None` if only the library can
    /// process the text.
    fn append(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        ids: &mut Vec<u32>,
        mut wants_more: impl FnMut(&mut Vec<u32>) -> bool,
    ) -> Option<()> {
        let mut segmenter =
            Segmenter::new(&self.char_map, &self.added, self.pieces.chars_max, text);
        let mut new = 0;
        // Held across successive known words.
        let mut known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        while wants_more(ids) {
            let (Segment::RawWord(word) | Segment::Word(word)) = (match segmenter.next() {
                Segment::End => return Some(()),
                Segment::Unsupported => return None,
                Segment::AddedToken(id) => {
                    ids.push(id);
                    continue;
                }
                Segment::LongWord => {
                    self.pieces.append_unknown(ids);
                    continue;
                }
                word => word,
            }) else {
                continue;
            };
            if let Some(of_word) = known.get(word) {
                ids.extend_from_slice(of_word);
                continue;
            }
            let before = ids.len();
            self.append_word(tokenizer, word, ids);
            if word.len() <= WORD_BYTES_MAX && new < NEW_MAX {
                new += 1;
                drop(known);
                self.cache(word, &ids[before..]);
                known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            }
        }
        Some(())
    }

    /// Appends the ids of a word. An ASCII word may not be normalized yet.
    fn append_word(&self, tokenizer: &Tokenizer, word: &str, ids: &mut Vec<u32>) {
        let model = tokenizer.get_model();
        let normalized = |char: char| match self.char_map.mapping(char) {
            CharMapping::One(OutputChar::InWord(mapped) | OutputChar::Isolated(mapped)) => mapped,
            // A normalized character stays the same.
            _ => char,
        };
        if word.is_ascii() {
            let word: String = word.chars().map(normalized).collect();
            self.pieces.append(model, &word, ids);
        } else {
            self.pieces.append(model, word, ids);
        }
    }

    /// Caches a word, unless another thread uses the cache. Waiting for the write lock would block all readers, and
    /// the current reader may have a long text.
    fn cache(&self, word: &str, ids: &[u32]) {
        let Ok(mut known) = self.known.try_write() else {
            return;
        };
        let mut evicted = None;
        if known.len() >= WORDS_MAX {
            evicted = Some(std::mem::take(&mut *known));
        }
        known.insert(word.into(), ids.into());
        drop(known);
        // Freeing takes a while, so it happens outside the lock.
        drop(evicted);
    }
}

/// More tokens than a text can have: a character makes a few at most.
fn all(text: &str) -> usize {
    4 * text.len() + 16
}

/// The number of tokens to keep of each text of a pair with `seen` tokens, at most `room` in all. The longer text is
/// truncated first, as in transformers.
fn longest_first([first, second]: [usize; 2], room: usize) -> [usize; 2] {
    let (shorter, is_swapped) = (first.min(second), first > second);
    let (mut short, mut long) = (shorter, room.saturating_sub(shorter));
    if long < short {
        short = room / 2;
        long = room - short;
    }
    if is_swapped {
        [long, short]
    } else {
        [short, long]
    }
}
