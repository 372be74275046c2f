//! The tokens of a text with their positions, for inspection.

use std::ops::Range;

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its row of the word embedding.
    pub id: u32,
    /// The text of the token, or the name of a special token.
    pub text: String,
    /// Its first character and the one after its last. `None` for a special token.
    pub span: Option<(usize, usize)>,
}

/// Slices a text by character positions. Tokens are in order of their start, so the text is scanned
/// once.
struct Chars<'a> {
    text: &'a str,
    /// Start of the previous slice, as a character and as a byte position.
    char: usize,
    byte: usize,
}

impl<'a> Chars<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            char: 0,
            byte: 0,
        }
    }

    /// Bytes of the next `chars` characters after byte `from`.
    fn bytes(&self, from: usize, chars: usize) -> usize {
        let rest = &self.text[from..];
        rest.chars().take(chars).map(char::len_utf8).sum()
    }

    fn slice(&mut self, chars: Range<usize>) -> &'a str {
        if chars.start < self.char {
            (self.char, self.byte) = (0, 0);
        }
        self.byte += self.bytes(self.byte, chars.start - self.char);
        self.char = chars.start;
        let end = self.byte + self.bytes(self.byte, chars.len());
        &self.text[self.byte..end]
    }
}

/// All tokens of a text, with or without special tokens.
pub(super) fn of(
    tokenizer: &tokenizers::Tokenizer,
    text: &str,
    with_special: bool,
) -> tokenizers::Result<Vec<Token>> {
    let encoding = tokenizer.encode_char_offsets(text, with_special)?;
    let mut chars = Chars::of(text);
    let token = |index: usize| {
        let special = encoding.get_special_tokens_mask()[index] == 1;
        let span = encoding.get_offsets()[index];
        Token {
            id: encoding.get_ids()[index],
            text: if special {
                encoding.get_tokens()[index].clone()
            } else {
                chars.slice(span.0..span.1).to_owned()
            },
            span: (!special).then_some(span),
        }
    };
    Ok((0..encoding.len()).map(token).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_by_character_in_any_order() {
        let mut chars = Chars::of("añ€😀b");
        assert_eq!(chars.slice(1..3), "ñ€");
        assert_eq!(chars.slice(3..5), "😀b");
        assert_eq!(chars.slice(0..1), "a");
        assert_eq!(chars.slice(5..5), "");
        let reversed = (9, 7);
        assert_eq!(chars.slice(reversed.0..reversed.1), "");
        assert_eq!((chars.slice(2..4), chars.slice(2..3)), ("€😀", "€"));
    }
}
