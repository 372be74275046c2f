//! Splits a text into words from its beginning, one at a time.
//!
//! The words are those of BERT's normalizer and pre-tokenizer for the whole text. The segmenter reads no further than
//! the end of a word requires.

use super::added::AddedTokens;
use super::char_map::{CharMap, CharMapping, OutputChar};

/// The next element of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// A word of ASCII characters, not yet normalized.
    RawWord(&'a str),
    /// A normalized word.
    Word(&'a str),
    /// A word of more than the allowed number of characters.
    LongWord,
    /// An added token.
    AddedToken(u32),
    /// The end of the text.
    End,
    /// A character that only the library can process.
    Unsupported,
}

/// Bytes that are searched for added tokens at a time. Longer than a short text, and short enough that searching
/// beyond the last wanted word costs little.
const SEARCH: usize = 512;

/// Most bytes of an ASCII word on the fast path.
const RAW_MAX: usize = 64;

/// Bytes that are skipped at a time where they do not matter.
const STRIDE: usize = 32;

/// The result of reaching [`Segmenter::clear`].
enum AtClear {
    /// Nothing ends here.
    Continue,
    /// The word ends. An empty word is the end of the text.
    WordEnd,
    /// An added token was consumed.
    AddedToken(u32),
}

/// A text that is being split.
#[derive(Debug)]
pub(super) struct Segmenter<'a> {
    char_map: &'a CharMap,
    added: &'a AddedTokens,
    chars_max: usize,
    text: &'a str,
    /// Byte position of the next character.
    at: usize,
    /// No added token begins before this byte position.
    clear: usize,
    /// The end and the id of the added token that begins at `clear`.
    next_added: Option<(usize, u32)>,
    /// The word so far, at most `chars_max` characters of it.
    word: String,
    /// Characters of the word so far, including those beyond `chars_max`.
    chars: usize,
    /// Normalized characters before `at` that are not consumed yet, the next one last.
    queue: Vec<OutputChar>,
    /// Marks that are not in canonical order yet, with their combining classes.
    marks: Vec<(u8, char)>,
}

impl<'a> Segmenter<'a> {
    /// A segmenter for `text`, with words of at most `chars_max` characters.
    pub(super) fn new(
        char_map: &'a CharMap,
        added: &'a AddedTokens,
        chars_max: usize,
        text: &'a str,
    ) -> Self {
        Self {
            char_map,
            added,
            chars_max,
            text,
            at: 0,
            clear: 0,
            next_added: None,
            word: String::new(),
            chars: 0,
            queue: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// The next element.
    pub(super) fn next(&mut self) -> Segment<'_> {
        self.word.clear();
        self.chars = 0;
        loop {
            if let Some(next) = self.queue.pop() {
                if self.ends_word(next) {
                    return self.word();
                }
            } else if self.at == self.clear {
                match self.at_clear() {
                    AtClear::Continue => {}
                    AtClear::WordEnd => return self.word(),
                    AtClear::AddedToken(id) => return Segment::AddedToken(id),
                }
            } else if self.chars == 0 && self.marks.is_empty() && self.skip_blanks() {
            } else if self.chars == 0
                && self.marks.is_empty()
                && let Some(end) = self.raw_end()
            {
                let word = &self.text[self.at..end];
                self.at = end;
                return Segment::RawWord(word);
            } else if self.is_long() && self.skip_word_chars() {
            } else if !self.take() {
                return Segment::Unsupported;
            }
        }
    }

    /// Bytes of the text that were read so far.
    #[cfg(test)]
    pub(super) fn bytes_read(&self) -> usize {
        self.at.max(self.clear)
    }

    fn is_long(&self) -> bool {
        self.chars > self.chars_max
    }

    fn word(&self) -> Segment<'_> {
        match self.chars {
            0 => Segment::End,
            _ if self.is_long() => Segment::LongWord,
            _ => Segment::Word(&self.word),
        }
    }

    fn push(&mut self, char: char) {
        self.chars += 1;
        if !self.is_long() {
            self.word.push(char);
        }
    }

    /// Consumes a normalized character. Returns whether the word is complete.
    fn ends_word(&mut self, next: OutputChar) -> bool {
        match next {
            OutputChar::InWord(char) => {
                self.push(char);
                false
            }
            OutputChar::Separator => self.chars > 0,
            OutputChar::Isolated(char) if self.chars == 0 => {
                self.push(char);
                true
            }
            OutputChar::Isolated(_) => {
                self.queue.push(next);
                true
            }
        }
    }

    /// At `clear`: searches on for added tokens, or ends the word.
    fn at_clear(&mut self) -> AtClear {
        let is_over = self.at == self.text.len();
        if !is_over && self.next_added.is_none() {
            let end = (self.clear + SEARCH).min(self.text.len());
            match self.added.find(self.text.as_bytes(), self.clear..end) {
                Some((range, id)) => {
                    self.clear = range.start;
                    self.next_added = Some((range.end, id));
                }
                None => self.clear = end,
            }
            return AtClear::Continue;
        }
        self.order_marks();
        if self.chars > 0 || is_over {
            return AtClear::WordEnd;
        }
        let Some((end, id)) = self.next_added.take() else {
            return AtClear::Continue;
        };
        (self.at, self.clear) = (end, end);
        AtClear::AddedToken(id)
    }

    /// Appends the pending marks in canonical order, before a character that keeps its place.
    fn order_marks(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        let mut marks = std::mem::take(&mut self.marks);
        marks.sort_by_key(|(class, _)| *class);
        for (_, char) in marks.drain(..) {
            self.push(char);
        }
        self.marks = marks;
    }

    /// Consumes the next character. Returns false if only the library can process it.
    fn take(&mut self) -> bool {
        // `clear` may lie within a character. No added token begins there.
        let Some(char) = self.text[self.at..].chars().next() else {
            return false;
        };
        self.at += char.len_utf8();
        self.clear = self.clear.max(self.at);
        match self.char_map.mapping(char) {
            CharMapping::One(mapped) => {
                self.order_marks();
                self.queue.push(mapped);
            }
            CharMapping::Many { expansion, .. } => {
                self.order_marks();
                self.char_map.expand(expansion, &mut self.queue);
                self.queue.reverse();
            }
            CharMapping::Removed { blocks_reordering } => {
                if self.skip_removed() || blocks_reordering {
                    self.order_marks();
                }
            }
            CharMapping::Reordered => {
                let char_map = self.char_map;
                char_map.marks(char, |class, mapped| match (class, mapped) {
                    (0, mapped) => {
                        self.order_marks();
                        mapped.into_iter().for_each(|char| self.push(char));
                    }
                    // All marks belong to the word, so the order of those beyond its limit does not matter.
                    (_, Some(mark)) if self.marks.len() <= self.chars_max => {
                        self.marks.push((class, mark));
                    }
                    (_, Some(_)) => self.chars = self.chars.max(self.chars_max + 1),
                    (_, None) => {}
                });
            }
            CharMapping::Unsupported => return false,
        }
        true
    }

    /// Skips blanks before a word. Returns whether there were any.
    fn skip_blanks(&mut self) -> bool {
        let ahead = &self.text.as_bytes()[self.at..self.clear];
        let is_blank = |stride: &&[u8]| stride.iter().fold(true, |all, byte| all & (*byte == b' '));
        let strides = ahead.chunks_exact(STRIDE).take_while(is_blank).count();
        let rest = &ahead[strides * STRIDE..];
        let blank = |byte: &u8| byte.is_ascii_whitespace() && *byte != b'\x0c';
        let more = rest.iter().take_while(|byte| blank(byte)).count();
        self.at += strides * STRIDE + more;
        strides * STRIDE + more > 0
    }

    /// Skips characters that are removed. Returns whether one of them blocks reordering.
    fn skip_removed(&mut self) -> bool {
        let end = self.text.floor_char_boundary(self.clear).max(self.at);
        let mut blocks_reordering = false;
        for char in self.text[self.at..end].chars() {
            let Some(blocks) = self.char_map.removed(char) else {
                break;
            };
            blocks_reordering |= blocks;
            self.at += char.len_utf8();
        }
        blocks_reordering
    }

    /// Skips characters of a word that is already too long. Returns whether there were any.
    fn skip_word_chars(&mut self) -> bool {
        let before = self.at;
        let ahead = &self.text.as_bytes()[self.at..self.clear];
        let is_inner = |stride: &&[u8]| {
            let inner = |all, byte: &u8| all & byte.is_ascii_alphanumeric();
            stride.iter().fold(true, inner)
        };
        let strides = ahead.chunks_exact(STRIDE).take_while(is_inner).count();
        self.at += strides * STRIDE;
        // Stops before a character that extends beyond `clear`.
        let end = self.text.floor_char_boundary(self.clear).max(self.at);
        let ahead = self.text[self.at..end].chars();
        let inner = ahead.take_while(|char| self.char_map.continues_word(*char));
        self.at += inner.map(char::len_utf8).sum::<usize>();
        let skipped = self.at > before;
        if skipped {
            // The marks belong to this word in any order.
            self.order_marks();
        }
        skipped
    }

    /// The end of the ASCII word that begins here. `None` if the fast path does not apply.
    fn raw_end(&self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let ahead = &bytes[self.at..self.clear];
        let first = ahead.first()?;
        if first.is_ascii_punctuation() {
            return Some(self.at + 1);
        }
        let part = &ahead[..ahead.len().min(RAW_MAX)];
        let end = part.iter().position(|byte| !byte.is_ascii_alphanumeric());
        let end = self.at + end.unwrap_or(part.len());
        if end == self.at || end - self.at > self.chars_max {
            return None;
        }
        let is_over = match bytes.get(end) {
            None => true,
            Some(_) if end == self.clear => self.next_added.is_some(),
            Some(byte) => is_boundary(*byte),
        };
        is_over.then_some(end)
    }
}

/// Whether an ASCII byte ends a word, whatever follows.
pub(super) fn is_boundary(byte: u8) -> bool {
    byte.is_ascii_punctuation() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
