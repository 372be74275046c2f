//! What is checked of a tokenizer at load, so that no request finds it.

use super::Tokenizer;
use crate::config::ModelConfig;
use crate::encoding::{EncodeError, Text, TooLong};
use crate::error::CheckpointError;

impl Tokenizer {
    /// Refuses a tokenizer with ids that have no row in the embedding.
    pub(super) fn check_ids(&self, path: &str, vocab_size: usize) -> Result<(), CheckpointError> {
        let vocab = self.library.get_vocab(true);
        match vocab.iter().max_by_key(|(_, id)| **id) {
            Some((token, id)) if *id as usize >= vocab_size => Err(CheckpointError::invalid(
                path,
                format!("{token:?}"),
                format!(
                    "an id below {vocab_size}, the rows of the word embedding (vocab_size in config.json; a token was added \
                 without resize_token_embeddings, or the files are of different models)"
                ),
                id,
            )),
            Some(_) => Ok(()),
            None => Err(CheckpointError::invalid(
                path,
                "vocab",
                "at least one token",
                "none",
            )),
        }
    }

    /// Encodes unusual texts, so that a missing unknown token or a template that does not fit
    /// the embeddings is found at start-up and not by a request.
    pub(super) fn check_probes(
        &self,
        path: &str,
        config: &ModelConfig,
    ) -> Result<(), CheckpointError> {
        let odd = "\u{16FE4}\u{2F9F4} \u{1E8D6}";
        let mut probes = vec![Text::Single(String::new()), Text::Single(odd.to_owned())];
        probes.push(Text::Single("a ".repeat(2 * self.max_tokens)));
        if self.pairs {
            probes.push(Text::Pair(
                "a ".repeat(self.max_tokens),
                "a ".repeat(self.max_tokens),
            ));
        }
        for probe in probes {
            let invalid = |key: &str, expected: String, found: String| {
                CheckpointError::invalid(path, key, expected, found)
            };
            let encoded = self.encode(&probe, TooLong::Truncate).map_err(|error| {
                if let EncodeError::Padding { token } = error {
                    let key = "pad_token_id";
                    let expected = "the id of a token that no text gets (in config.json)";
                    return invalid(key, expected.to_owned(), format!("that of {token:?}"));
                }
                let expected =
                    "tokens for every text: an unknown token, and special tokens (post_processor)";
                invalid("(tokens)", expected.to_owned(), error.to_string())
            })?;
            let most = |ids: &[u32]| ids.iter().copied().max().unwrap_or(0) as usize;
            for (key, found, end) in [
                ("post_processor ids", most(&encoded.ids), config.vocab_size),
                (
                    "post_processor type ids",
                    most(&encoded.type_ids),
                    config.type_vocab_size,
                ),
                (
                    "tokens of a long text",
                    encoded.ids.len(),
                    self.max_tokens + 1,
                ),
            ] {
                if found >= end {
                    return Err(invalid(key, format!("less than {end}"), found.to_string()));
                }
            }
        }
        Ok(())
    }
}
