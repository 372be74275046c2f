//! Foreign text on a terminal: labels, data sets, answers of servers.
//!
//! Control characters command a terminal, and those that set the direction of text hide or reorder it. So
//! both are printed escaped.

use std::fmt::Write as _;

/// Escapes `text`, including its line breaks and tabs.
pub(super) fn line(text: &str) -> String {
    escaped(text, |char| is_control(char) || matches!(char, '\n' | '\t'))
}

/// Escapes `text`, except for its line breaks and tabs.
pub(super) fn lines(text: &str) -> String {
    escaped(text, is_control)
}

/// Formats JSON in one line. JSON itself escapes the control characters below U+0020.
pub(super) fn json(value: &serde_json::Value) -> String {
    let mut json = String::new();
    for char in value.to_string().chars() {
        match is_control(char) {
            true => drop(write!(json, "\\u{:04x}", u32::from(char))),
            false => json.push(char),
        }
    }
    json
}

/// Whether a character commands the terminal. Line breaks and tabs do not count.
fn is_control(char: char) -> bool {
    let blank = matches!(char, '\n' | '\t');
    // Directional marks, embeddings and isolates, and the separators of lines and paragraphs.
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
    fn control_characters_are_escaped() {
        let text = "a\u{1b}[2J\u{9b}1m\r\n\tb\u{202e}ü\u{7f}";
        let shown = "a\\u{1b}[2J\\u{9b}1m\\r\n\tb\\u{202e}ü\\u{7f}";
        assert_eq!(lines(text), shown);
        assert_eq!(line(text), shown.replace('\n', "\\n").replace('\t', "\\t"));
        let value = serde_json::json!({ "text": text });
        let written = json(&value);
        assert!(
            written
                .chars()
                .all(|char| !char.is_control() && !is_control(char))
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&written).unwrap(),
            value
        );
    }
}
