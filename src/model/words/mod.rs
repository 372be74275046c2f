//! A text to the ids of its tokens as BERT does it, as far as they are wanted.
//!
//! The library takes a text as a whole through every step and keeps where each character came from: some
//! three hundred bytes for each byte of text, and all of it before the first token is known. Of a text that is
//! cut after some hundred tokens that is work for nothing, and a client can ask for it by the megabyte.
//! Here a text is cut into words from its beginning ([`cut`]) until there are tokens enough. What a
//! character, a word, an added token becomes is the library's answer, asked for once
//! ([`alphabet`], [`pieces`], [`added`]); words that have been met are remembered.

mod added;
mod alphabet;
mod cut;
mod frame;
mod pieces;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationDirection;

use self::added::Added;
use self::alphabet::{Alphabet, Letter, Made};
use self::cut::{Cut, Cutter, is_boundary};
use self::frame::Frame;
use self::pieces::Pieces;
use super::{EncodeError, Encoded, Text, TooLong};

/// Words that are remembered; when there are more, all are forgotten. A language's daily words are
/// fewer, and a client that sends nonsense takes no more than some megabytes.
const WORDS_MAX: usize = 32_768;

/// New words of a text that are remembered: one that has more is not one of many alike.
const NEW_MAX: usize = 8;

/// Longer words are rare and not remembered.
const WORD_BYTES_MAX: usize = 32;

/// Of the texts of a pair that is too long the longer one is cut, and both where both are. Which one is longer
/// decides about one token then, and is not looked for beyond so many.
const PAIR_TOKENS: usize = 4096;

/// Of a text whose end is wanted, so many bytes a token are looked at first.
const BYTES_A_TOKEN: usize = 16;

/// What is known of a tokenizer's words.
#[derive(Debug)]
pub(super) struct Words {
    alphabet: Alphabet,
    added: Added,
    pieces: Pieces,
    known: RwLock<HashMap<Box<str>, Box<[u32]>>>,
    direction: TruncationDirection,
    single: Frame,
    pair: Option<Frame>,
}

/// The ids of a text from its beginning, or up to its end.
#[derive(Debug)]
struct Part {
    /// So many as were wanted, or all.
    ids: Vec<u32>,
    /// How many tokens the text has, as far as that was looked at.
    seen: usize,
}

impl Part {
    /// The first `count` ids, or the last.
    fn cut(&self, count: usize, direction: TruncationDirection) -> &[u32] {
        let count = count.min(self.ids.len());
        match direction {
            TruncationDirection::Right => &self.ids[..count],
            TruncationDirection::Left => &self.ids[self.ids.len() - count..],
        }
    }
}

impl Words {
    /// For `tokenizer`, if it cuts texts into words as BERT does; texts that are too long are cut in
    /// `direction`.
    pub(super) fn of(tokenizer: &Tokenizer, direction: TruncationDirection) -> Option<Self> {
        let words = Self {
            single: Frame::single(tokenizer)?,
            pair: Frame::pair(tokenizer),
            direction,
            alphabet: Alphabet::of(tokenizer)?,
            added: Added::of(tokenizer)?,
            pieces: Pieces::of(tokenizer)?,
            known: RwLock::default(),
        };
        // What is passed over quickly is what it is taken for.
        let as_taken = (0..128_u8).all(|byte| {
            let char = char::from(byte);
            match words.alphabet.made(char) {
                Made::One(Letter::Inner(_)) => byte.is_ascii_alphanumeric() || !is_boundary(byte),
                Made::One(Letter::Alone(same)) => byte.is_ascii_punctuation() && same == char,
                Made::One(Letter::Blank) => !byte.is_ascii_graphic(),
                _ => !byte.is_ascii_graphic() && !is_boundary(byte),
            }
        });
        as_taken.then_some(words)
    }

    /// Whether pairs are read here too.
    pub(super) fn has_pairs(&self) -> bool {
        self.pair.is_some()
    }

    /// The ids of `text` with what is put around them, cut after `max` in all, or refused; none where only
    /// the library knows.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &Text,
        (max, too_long): (usize, TooLong),
    ) -> Option<Result<Encoded, EncodeError>> {
        let frame = match text {
            Text::Single(_) => &self.single,
            Text::Pair(..) => self.pair.as_ref()?,
        };
        let room = max.checked_sub(frame.len())?;
        let (first, second) = match text {
            Text::Single(text) => (self.part(tokenizer, text, (room, room))?, None),
            Text::Pair(first, second) => {
                let enough = room.max(PAIR_TOKENS);
                let first = self.part(tokenizer, first, (room, enough))?;
                (first, Some(self.part(tokenizer, second, (room, enough))?))
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
        let mut parts = vec![first.cut(of_first, self.direction)];
        parts.extend(
            second
                .iter()
                .map(|second| second.cut(of_second, self.direction)),
        );
        let (ids, type_ids) = frame.put_around(&parts);
        if ids.is_empty() {
            return Some(Err(EncodeError::NoTokens));
        }
        Some(Ok(Encoded {
            ids,
            type_ids,
            truncated,
        }))
    }

    /// The first `max` ids of `text`, or the last; none where only the library knows. It is looked at
    /// until it has more than `enough` tokens, which is at least `max`.
    fn part(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        (max, enough): (usize, usize),
    ) -> Option<Part> {
        match self.direction {
            TruncationDirection::Right => {
                let mut ids = Vec::with_capacity(max.min(text.len() / 3 + 4));
                self.append(tokenizer, text, &mut ids, |ids| ids.len() <= enough)?;
                let seen = ids.len();
                ids.truncate(max);
                Some(Part { ids, seen })
            }
            TruncationDirection::Left => {
                let mut bytes = BYTES_A_TOKEN * (enough + 1);
                loop {
                    let start = self.start_of_end(text, bytes);
                    let part = self.end(tokenizer, &text[start..], max)?;
                    if start == 0 || part.seen > enough {
                        return Some(part);
                    }
                    bytes *= 4;
                }
            }
        }
    }

    /// A place before which the tokens behind it do not depend on what stands there, in the last `bytes`
    /// of a text; its beginning where there is none.
    fn start_of_end(&self, text: &str, bytes: usize) -> usize {
        let Some(from) = text.len().checked_sub(bytes) else {
            return 0;
        };
        let from = text.ceil_char_boundary(from);
        let is_start = |char: char| {
            if let Some(byte) = u8::try_from(char).ok().filter(u8::is_ascii) {
                return is_boundary(byte) && !self.added.has(byte);
            }
            let mut letters = Vec::new();
            if let Made::Several(several, _) = self.alphabet.made(char) {
                self.alphabet.several(several, &mut letters);
            }
            letters.first() == Some(&Letter::Blank)
        };
        let found = text[from..]
            .char_indices()
            .find(|(_, char)| is_start(*char));
        found.map_or(0, |(offset, _)| from + offset)
    }

    /// The last `max` ids of a text that is looked at as a whole.
    fn end(&self, tokenizer: &Tokenizer, text: &str, max: usize) -> Option<Part> {
        let (mut ids, mut dropped) = (Vec::new(), 0);
        self.append(tokenizer, text, &mut ids, |ids| {
            let surplus = ids.len().saturating_sub(max);
            // Seldom, so that each is moved once or twice.
            if surplus > max + 1024 {
                ids.drain(..surplus);
                dropped += surplus;
            }
            true
        })?;
        let surplus = ids.len().saturating_sub(max);
        ids.drain(..surplus);
        let seen = dropped + surplus + ids.len();
        Some(Part { ids, seen })
    }

    /// Appends the ids of `text` word by word, as long as `more` are wanted.
    fn append(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        ids: &mut Vec<u32>,
        mut more: impl FnMut(&mut Vec<u32>) -> bool,
    ) -> Option<()> {
        let mut cutter = Cutter::new(&self.alphabet, &self.added, self.pieces.chars_max, text);
        let mut new = 0;
        // One lock for all known words in a row.
        let mut known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        while more(ids) {
            let (Cut::Raw(word) | Cut::Word(word)) = (match cutter.next() {
                Cut::End => return Some(()),
                Cut::Unknown => return None,
                Cut::Added(id) => {
                    ids.push(id);
                    continue;
                }
                Cut::Long => {
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
                self.remember(word, &ids[before..]);
                known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            }
        }
        Some(())
    }

    /// Appends the ids of a word, which may still have to be normalized where it is ASCII.
    fn append_word(&self, tokenizer: &Tokenizer, word: &str, ids: &mut Vec<u32>) {
        let model = tokenizer.get_model();
        let normalized = |char: char| match self.alphabet.made(char) {
            Made::One(Letter::Inner(made) | Letter::Alone(made)) => made,
            // A normalized character stays what it is.
            _ => char,
        };
        if word.is_ascii() {
            let word: String = word.chars().map(normalized).collect();
            self.pieces.append(model, &word, ids);
        } else {
            self.pieces.append(model, word, ids);
        }
    }

    /// Remembers a word, if nobody is looking at the others: whoever waits here keeps all others waiting, and
    /// the text that is being read may be a long one.
    fn remember(&self, word: &str, ids: &[u32]) {
        let Ok(mut known) = self.known.try_write() else {
            return;
        };
        let mut forgotten = None;
        if known.len() >= WORDS_MAX {
            forgotten = Some(std::mem::take(&mut *known));
        }
        known.insert(word.into(), ids.into());
        drop(known);
        // Without the lock: that takes a while.
        drop(forgotten);
    }
}

/// How many tokens of each of two texts are kept of `seen` where there is room for `room`: the longer one is
/// cut first, as transformers does it.
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
