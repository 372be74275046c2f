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

/// Slices of a text by characters, which is walked through once as long as they come in order.
struct Chars<'a> {
    text: &'a str,
    /// A character and the byte at which it begins.
    at: (usize, usize),
}

impl<'a> Chars<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: (0, 0) }
    }

    fn byte(&mut self, char: usize) -> usize {
        if char < self.at.0 {
            self.at = (0, 0);
        }
        let (from, byte) = self.at;
        let rest = &self.text[byte..];
        let bytes: usize = rest.chars().take(char - from).map(char::len_utf8).sum();
        self.at = (char, byte + bytes);
        self.at.1
    }

    fn slice(&mut self, (start, stop): (usize, usize)) -> &'a str {
        let start = self.byte(start);
        let stop = self.byte(stop.max(self.at.0));
        &self.text[start..stop]
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
    }
}
