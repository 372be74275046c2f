//! The tokens of a text, for people who want to see them.

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its row of the word embedding.
    pub id: u32,
    /// What stands in the text there, or the name of a special token.
    pub text: String,
    /// Where it stands, from and up to a character; `None` for a special token, which stands nowhere.
    pub span: Option<(usize, usize)>,
}

/// Slices of a text by characters. Tokens come in the order of their beginnings, so the text is walked through
/// once.
struct Chars<'a> {
    text: &'a str,
    /// The character at which the slice before began, and its byte.
    at: (usize, usize),
}

impl<'a> Chars<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: (0, 0) }
    }

    /// Bytes of the next `chars` characters behind a byte.
    fn bytes(&self, from: usize, chars: usize) -> usize {
        let rest = &self.text[from..];
        rest.chars().take(chars).map(char::len_utf8).sum()
    }

    fn slice(&mut self, (start, stop): (usize, usize)) -> &'a str {
        if start < self.at.0 {
            self.at = (0, 0);
        }
        let (char, byte) = self.at;
        let begin = byte + self.bytes(byte, start - char);
        self.at = (start, begin);
        let end = begin + self.bytes(begin, stop.saturating_sub(start));
        &self.text[begin..end]
    }
}

/// All tokens of a text, with special ones or without.
pub(super) fn of(
    tokenizer: &tokenizers::Tokenizer,
    text: &str,
    with_special: bool,
) -> tokenizers::Result<Vec<Token>> {
    let encoding = tokenizer.encode_char_offsets(text, with_special)?;
    let mut chars = Chars::of(text);
    let token = |place: usize| {
        let special = encoding.get_special_tokens_mask()[place] == 1;
        let span = encoding.get_offsets()[place];
        Token {
            id: encoding.get_ids()[place],
            text: if special {
                encoding.get_tokens()[place].clone()
            } else {
                chars.slice(span).to_owned()
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
    fn slices_are_by_characters_in_any_order() {
        let mut chars = Chars::of("añ€😀b");
        assert_eq!(chars.slice((1, 3)), "ñ€");
        assert_eq!(chars.slice((3, 5)), "😀b");
        assert_eq!(chars.slice((0, 1)), "a");
        assert_eq!(chars.slice((5, 5)), "");
        assert_eq!(chars.slice((9, 7)), "");
        assert_eq!((chars.slice((2, 4)), chars.slice((2, 3))), ("€😀", "€"));
    }
}
