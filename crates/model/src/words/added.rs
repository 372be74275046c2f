//! Tokens added to a vocabulary, such as `[SEP]`. They are matched in the raw text, before normalization.

use std::ops::Range;

use tokenizers::Tokenizer;

/// The added tokens of a tokenizer.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// Longest first, because the longest match wins.
    tokens: Vec<(Box<[u8]>, u32)>,
    first_bytes: Vec<u8>,
    bytes: [bool; 256],
}

impl AddedTokens {
    /// The added tokens of a tokenizer. `None` if a match depends on more than the bytes of a token.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let mut tokens: Vec<(Box<[u8]>, u32)> = Vec::new();
        let (mut first_bytes, mut bytes) = (Vec::new(), [false; 256]);
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            // Whether a token strips adjacent blanks does not matter, because blanks produce no tokens. A token that is
            // matched in the normalized text, or only at the end of a word, is left to the library.
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

    /// Whether any of the tokens contains a byte.
    pub(super) fn contains_byte(&self, byte: u8) -> bool {
        self.bytes[usize::from(byte)]
    }

    /// The first token that begins in the range `part` of `text`, with its id.
    pub(super) fn find(&self, text: &[u8], part: Range<usize>) -> Option<(Range<usize>, u32)> {
        let mut from = part.start;
        while let Some(offset) = self.find_first_byte(&text[from..part.end]) {
            let start = from + offset;
            let matches = |(content, _): &&(Box<[u8]>, u32)| text[start..].starts_with(content);
            if let Some((content, id)) = self.tokens.iter().find(matches) {
                return Some((start..start + content.len(), *id));
            }
            from = start + 1;
        }
        None
    }

    /// The first position in `text` where a token may begin.
    fn find_first_byte(&self, text: &[u8]) -> Option<usize> {
        match self.first_bytes[..] {
            [] => None,
            // All of BERT's tokens begin with a bracket.
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
    fn the_first_and_longest_token_is_found() {
        let token = |content: &str, id| (content.as_bytes().into(), id);
        let added = AddedTokens {
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
