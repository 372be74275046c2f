//! The texts of requests, read from a file with one text a line.

use std::path::{Path, PathBuf};

use intentd_base::input;
use serde_json::Value;

/// The probes of the embedded model's card: short sentences of everyday English.
const PROBES: &str = include_str!("../../../models/intent-snips/probes.jsonl");

/// Why a file gives no texts.
#[derive(Debug, thiserror::Error)]
pub enum TextsError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line of a JSONL file has no text.
    #[error("{}, line {line}: expected a JSON object with a \"text\"", file.display())]
    NotAText {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The file has no texts.
    #[error("{}: no texts in it", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// Reads the texts of a file: lines of `{"text": …}` in a `.jsonl`, otherwise every line that is not blank.
/// Without a file it returns the probes of the embedded model.
///
/// # Errors
/// When the file has no text, or a line of a `.jsonl` has none.
pub fn read_texts(file: Option<&Path>) -> Result<Vec<String>, TextsError> {
    let Some(path) = file else {
        return parse_texts(Path::new("probes.jsonl"), PROBES);
    };
    let content =
        input::read_text(path, input::TEXTS).map_err(|source| TextsError::Unreadable {
            file: path.to_owned(),
            source,
        })?;
    parse_texts(path, &content)
}

/// Parses the content of a file of texts. The extension of `path` selects the format.
///
/// # Errors
/// See [`read_texts`].
pub fn parse_texts(path: &Path, content: &str) -> Result<Vec<String>, TextsError> {
    let file = path.to_owned();
    let json = path
        .extension()
        .is_some_and(|extension| extension == "jsonl");
    let mut texts = Vec::new();
    for (index, line) in content.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        if !json {
            texts.push(line.to_owned());
            continue;
        }
        let value: Option<Value> = serde_json::from_str(line).ok();
        match value.as_ref().and_then(|value| value["text"].as_str()) {
            Some(text) => texts.push(text.to_owned()),
            None => {
                let line = index + 1;
                return Err(TextsError::NotAText { file, line });
            }
        }
    }
    match texts.is_empty() {
        true => Err(TextsError::Empty { file }),
        false => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_json_lines_are_texts() {
        let lines = parse_texts(Path::new("a.txt"), "play some jazz\n\n {\"text\": 1}\n").unwrap();
        assert_eq!(lines, ["play some jazz", " {\"text\": 1}"]);
        let lines = parse_texts(
            Path::new("a.jsonl"),
            "{\"text\": \"a\", \"label\": \"b\"}\n\n",
        )
        .unwrap();
        assert_eq!(lines, ["a"]);
        let error =
            parse_texts(Path::new("a.jsonl"), "{\"text\": \"a\"}\n{\"text\": 1}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(parse_texts(Path::new("a.txt"), " \n").is_err());
        assert!(read_texts(Some(Path::new("/no/such"))).is_err());
        assert!(read_texts(None).unwrap().len() > 100);
    }
}
