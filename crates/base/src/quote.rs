//! Quotations of other people's text in messages.

/// Characters of a wrong text that a message quotes. The sender knows the rest.
const SHOWN_MAX: usize = 100;

/// Quotes `text` for a message, truncated if it is long.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_quoted_in_part() {
        assert_eq!(shown("a\n"), "\"a\\n\"");
        let long = "\u{10ffff}".repeat(1_000_000);
        assert!(shown(&long).len() < 1300);
    }
}
