//! Text of others on a terminal: labels, data sets, answers of servers.
//!
//! A terminal obeys control characters in what it shows, and hides or reorders text after those that
//! set its direction. So they are shown, not sent.

use std::fmt::Write as _;

/// `text` in one line.
pub(super) fn line(text: &str) -> String {
    escaped(text, |char| obeyed(char) || matches!(char, '\n' | '\t'))
}

/// `text` in as many lines as it has.
pub(super) fn lines(text: &str) -> String {
    escaped(text, obeyed)
}

/// JSON in one line. What is below a blank, JSON escapes by itself.
pub(super) fn json(value: &serde_json::Value) -> String {
    let mut json = String::new();
    for char in value.to_string().chars() {
        match obeyed(char) {
            true => drop(write!(json, "\\u{:04x}", u32::from(char))),
            false => json.push(char),
        }
    }
    json
}

fn obeyed(char: char) -> bool {
    let blank = matches!(char, '\n' | '\t');
    // Marks, embeddings and isolates of direction, and the separators of lines and paragraphs.
    let direction = matches!(
        char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    (char.is_control() && !blank) || direction
}

fn escaped(text: &str, escape: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match escape(char) {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        let text = "a\u{1b}[2J\u{9b}1m\r\n\tb\u{202e}ü\u{7f}";
        let shown = "a\\u{1b}[2J\\u{9b}1m\\r\n\tb\\u{202e}ü\\u{7f}";
        assert_eq!(lines(text), shown);
        assert_eq!(line(text), shown.replace('\n', "\\n").replace('\t', "\\t"));
        let value = serde_json::json!({ "text": text });
        let written = json(&value);
        assert!(
            written
                .chars()
                .all(|char| !char.is_control() && !obeyed(char))
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&written).unwrap(),
            value
        );
    }
}
