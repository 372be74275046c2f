//! Tokens that were added to a vocabulary, such as `[SEP]`: found in a text before anything else, as it
//! stands.

use std::ops::Range;

use tokenizers::Tokenizer;

/// The added tokens of a tokenizer.
#[derive(Debug)]
pub(super) struct Added {
    /// The longest first: of two that begin at the same place the longer one counts.
    tokens: Vec<(Box<[u8]>, u32)>,
    first_bytes: Vec<u8>,
    bytes: [bool; 256],
}

impl Added {
    /// Of a tokenizer; none where more than the bytes of a token decides.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let mut tokens: Vec<(Box<[u8]>, u32)> = Vec::new();
        let (mut first_bytes, mut bytes) = (Vec::new(), [false; 256]);
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            // Blanks around a token belong to nothing otherwise, so it does not matter whether it takes
            // them. A token that is looked for in the normalized text, or only where a word ends, is left
            // to the library.
            let is_plain = !token.normalized && !token.single_word;
            if !is_plain || !token.content.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            let content = token.content.as_bytes();
            first_bytes.push(*content.first()?);
            for byte in content {
                bytes[usize::from(*byte)] = true;
            }
            tokens.push((content.into(), id));
        }
        first_bytes.sort_unstable();
        first_bytes.dedup();
        tokens.sort_by_key(|(content, _)| std::cmp::Reverse(content.len()));
        Some(Self {
            tokens,
            first_bytes,
            bytes,
        })
    }

    /// Whether a byte stands in any of them.
    pub(super) fn has(&self, byte: u8) -> bool {
        self.bytes[usize::from(byte)]
    }

    /// The first token that begins in a part of `text`.
    pub(super) fn find(&self, text: &[u8], part: Range<usize>) -> Option<(Range<usize>, u32)> {
        let mut from = part.start;
        while let Some(offset) = self.find_first_byte(&text[from..part.end]) {
            let start = from + offset;
            let stands = |(content, _): &&(Box<[u8]>, u32)| text[start..].starts_with(content);
            if let Some((content, id)) = self.tokens.iter().find(stands) {
                return Some((start..start + content.len(), *id));
            }
            from = start + 1;
        }
        None
    }

    /// Where in `text` a token may begin.
    fn find_first_byte(&self, text: &[u8]) -> Option<usize> {
        match self.first_bytes[..] {
            [] => None,
            // All of BERT's begin with a bracket.
            [one] => memchr::memchr(one, text),
            [one, two] => memchr::memchr2(one, two, text),
            _ => text.iter().position(|byte| self.first_bytes.contains(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_and_of_those_there_the_longest() {
        let token = |content: &str, id| (content.as_bytes().into(), id);
        let added = Added {
            tokens: vec![token("[AB]", 2), token("[A", 1)],
            first_bytes: b"[".to_vec(),
            bytes: [false; 256],
        };
        let find = |text: &str, part| added.find(text.as_bytes(), part);
        assert_eq!(find("x[[A[AB]", 0..8), Some((2..4, 1)));
        assert_eq!(find("x[[A[AB]", 4..5), Some((4..8, 2)));
        assert_eq!(find("x[[A[AB]", 5..8), None);
        assert_eq!(find("x[", 0..2), None);
    }
}
