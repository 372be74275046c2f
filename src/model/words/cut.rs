//! A text cut into words from its beginning, one at a time, as BERT's normalizer and pre-tokenizer would
//! cut it as a whole. What lies behind the word that is asked for is not looked at, but for what decides
//! where it ends.

use super::added::Added;
use super::alphabet::{Alphabet, Letter, Made};

/// The next of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    /// A word of ASCII characters as it stands, not yet normalized.
    Raw(&'a str),
    /// A word, normalized.
    Word(&'a str),
    /// A word of more characters than a word has.
    Long,
    /// An added token.
    Added(u32),
    /// Nothing more.
    End,
    /// A character that only the library knows.
    Unknown,
}

/// Bytes in which an added token is looked for at a time. More than a short text has, and less than what is
/// worth counting.
const LOOK: usize = 512;

/// Bytes of an ASCII word that are looked at in one go.
const RAW_MAX: usize = 64;

/// Bytes that are passed over in one go where they decide nothing.
const STRIDE: usize = 32;

/// A text that is being cut.
#[derive(Debug)]
pub(super) struct Cutter<'a> {
    alphabet: &'a Alphabet,
    added: &'a Added,
    chars_max: usize,
    text: &'a str,
    at: usize,
    /// Up to here no added token begins.
    clear: usize,
    /// The added token that begins there, by its end.
    next_added: Option<(usize, u32)>,
    /// The word so far, without what is more than a word has.
    word: String,
    /// Its characters, those included.
    chars: usize,
    /// Letters that come before what stands at `at`, the next one last.
    queue: Vec<Letter>,
    /// Marks that stay and are not in order yet, with their combining classes.
    marks: Vec<(u8, char)>,
}

impl<'a> Cutter<'a> {
    /// Of `text`, with words of at most `chars_max` characters.
    pub(super) fn new(
        alphabet: &'a Alphabet,
        added: &'a Added,
        chars_max: usize,
        text: &'a str,
    ) -> Self {
        Self {
            alphabet,
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

    /// The next word.
    pub(super) fn next(&mut self) -> Cut<'_> {
        self.word.clear();
        self.chars = 0;
        loop {
            if let Some(letter) = self.queue.pop() {
                if self.is_end(letter) {
                    return self.word();
                }
            } else if self.at == self.clear {
                if let Some(end) = self.at_clear() {
                    return end.unwrap_or_else(|| self.word());
                }
            } else if self.chars == 0 && self.marks.is_empty() && self.skip_blanks() {
            } else if self.chars == 0
                && self.marks.is_empty()
                && let Some(end) = self.raw_end()
            {
                let word = &self.text[self.at..end];
                self.at = end;
                return Cut::Raw(word);
            } else if self.is_long() && self.skip_letters() {
            } else if !self.take() {
                return Cut::Unknown;
            }
        }
    }

    /// Bytes of the text that were looked at so far.
    #[cfg(test)]
    pub(super) fn looked_at(&self) -> usize {
        self.at.max(self.clear)
    }

    fn is_long(&self) -> bool {
        self.chars > self.chars_max
    }

    fn word(&self) -> Cut<'_> {
        match self.chars {
            0 => Cut::End,
            _ if self.is_long() => Cut::Long,
            _ => Cut::Word(&self.word),
        }
    }

    fn push(&mut self, char: char) {
        self.chars += 1;
        if !self.is_long() {
            self.word.push(char);
        }
    }

    /// Takes a letter; whether the word is whole.
    fn is_end(&mut self, letter: Letter) -> bool {
        match letter {
            Letter::Inner(char) => {
                self.push(char);
                false
            }
            Letter::Blank => self.chars > 0,
            Letter::Alone(char) if self.chars == 0 => {
                self.push(char);
                true
            }
            Letter::Alone(_) => {
                self.queue.push(letter);
                true
            }
        }
    }

    /// At a place up to which no added token begins: looks further, or ends what ends there. `Some(None)`
    /// when that is the word, which is the last one where it is empty.
    fn at_clear(&mut self) -> Option<Option<Cut<'static>>> {
        let is_over = self.at == self.text.len();
        if !is_over && self.next_added.is_none() {
            let end = (self.clear + LOOK).min(self.text.len());
            match self.added.find(self.text.as_bytes(), self.clear..end) {
                Some((place, id)) => {
                    self.clear = place.start;
                    self.next_added = Some((place.end, id));
                }
                None => self.clear = end,
            }
            return None;
        }
        self.settle_marks();
        if self.chars > 0 || is_over {
            return Some(None);
        }
        let (end, id) = self.next_added.take()?;
        (self.at, self.clear) = (end, end);
        Some(Some(Cut::Added(id)))
    }

    /// Marks are in their order when something comes that keeps its place.
    fn settle_marks(&mut self) {
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

    /// Takes the next character; false when only the library knows what becomes of it.
    fn take(&mut self) -> bool {
        // `clear` may lie within a character; an added token does not begin there.
        let Some(char) = self.text[self.at..].chars().next() else {
            return false;
        };
        self.at += char.len_utf8();
        self.clear = self.clear.max(self.at);
        match self.alphabet.made(char) {
            Made::One(letter) => {
                self.settle_marks();
                self.queue.push(letter);
            }
            Made::Several(several, _) => {
                self.settle_marks();
                self.alphabet.several(several, &mut self.queue);
                self.queue.reverse();
            }
            Made::Nothing { is_wall } => {
                if self.skip_nothing() || is_wall {
                    self.settle_marks();
                }
            }
            Made::Moving => {
                let alphabet = self.alphabet;
                alphabet.marks(char, |class, letter| match (class, letter) {
                    (0, letter) => {
                        self.settle_marks();
                        letter.into_iter().for_each(|letter| self.push(letter));
                    }
                    // They all belong to the word, so of more than it has their order does not matter.
                    (_, Some(letter)) if self.marks.len() <= self.chars_max => {
                        self.marks.push((class, letter));
                    }
                    (_, Some(_)) => self.chars = self.chars.max(self.chars_max + 1),
                    (_, None) => {}
                });
            }
            Made::Unknown => return false,
        }
        true
    }

    /// Passes over blanks before a word; whether there were any.
    fn skip_blanks(&mut self) -> bool {
        let ahead = &self.text.as_bytes()[self.at..self.clear];
        let is_blank = |stride: &&[u8]| stride.iter().fold(true, |all, byte| all & (*byte == b' '));
        let strides = ahead.chunks_exact(STRIDE).take_while(is_blank).count();
        let behind = &ahead[strides * STRIDE..];
        let blank = |byte: &u8| byte.is_ascii_whitespace() && *byte != b'\x0c';
        let more = behind.iter().take_while(|byte| blank(byte)).count();
        self.at += strides * STRIDE + more;
        strides * STRIDE + more > 0
    }

    /// Passes over what becomes nothing; whether a wall was among it.
    fn skip_nothing(&mut self) -> bool {
        let end = self.text.floor_char_boundary(self.clear).max(self.at);
        let mut is_wall = false;
        for char in self.text[self.at..end].chars() {
            let Some(is_one) = self.alphabet.nothing(char) else {
                break;
            };
            is_wall |= is_one;
            self.at += char.len_utf8();
        }
        is_wall
    }

    /// Passes over letters of a word that is too long already; whether there were any.
    fn skip_letters(&mut self) -> bool {
        let before = self.at;
        let ahead = &self.text.as_bytes()[self.at..self.clear];
        let is_inner = |stride: &&[u8]| {
            let inner = |all, byte: &u8| all & byte.is_ascii_alphanumeric();
            stride.iter().fold(true, inner)
        };
        let strides = ahead.chunks_exact(STRIDE).take_while(is_inner).count();
        self.at += strides * STRIDE;
        // A character that reaches beyond what is clear is not looked at here.
        let end = self.text.floor_char_boundary(self.clear).max(self.at);
        let ahead = self.text[self.at..end].chars();
        let inner = ahead.take_while(|char| self.alphabet.is_inner(*char));
        self.at += inner.map(char::len_utf8).sum::<usize>();
        let skipped = self.at > before;
        if skipped {
            // They belong to this word whatever their order is.
            self.settle_marks();
        }
        skipped
    }

    /// Where the ASCII word ends that begins here; none where more has to be looked at.
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

/// Whether an ASCII byte ends a word whatever comes behind it.
pub(super) fn is_boundary(byte: u8) -> bool {
    byte.is_ascii_punctuation() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
