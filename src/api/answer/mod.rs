//! Predictions as answers: our own JSON, HTML and plain text, and the JSON of text-embeddings-inference (TEI).

mod own;
mod scores;
mod tei;

pub(super) use self::own::{OwnAnswers, encode};
pub(super) use self::tei::{Stopwatch, TeiAnswers, encode_tei};
