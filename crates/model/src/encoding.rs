//! What a tokenizer takes and gives: texts, token ids, and refusals.

/// What to classify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// One text.
    Single(String),
    /// Two texts, joined by `[SEP]` and distinguished by their token types.
    Pair(String, String),
}

impl Text {
    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Single(text) => text.len(),
            Self::Pair(first, second) => first.len() + second.len(),
        }
    }
}

/// How to treat a text that has more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// Keep the beginning, as Hugging Face pipelines do.
    Truncate,
    /// Refuse it.
    Refuse,
}

/// Token ids of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Ids, `[CLS]` first.
    pub ids: Vec<u32>,
    /// Token types, one for each id: 0 for the first text, 1 for the second.
    pub type_ids: Vec<u32>,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// A text that cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The text is too long, and the caller did not allow truncation.
    #[error(
        "the text is longer than the {max} tokens this model takes; shorten it or allow truncation"
    )]
    TooLong {
        /// The model's limit, special tokens included.
        max: usize,
    },
    /// The model has only one token type.
    #[error("this model was not made for pairs of texts (type_vocab_size is 1); send single texts")]
    PairUnsupported,
    /// The text contains the padding token.
    #[error(
        "the text contains {token:?}, the token with which this model is padded, and which has no place within a text; \
         remove it"
    )]
    Padding {
        /// The token.
        token: String,
    },
    /// The text is long, and this tokenizer cannot stop before its end.
    #[error(
        "the text has {bytes} bytes, of which this model's tokenizer takes {max} at once, and makes too few tokens \
         of those to cut the text there; shorten it"
    )]
    TooLarge {
        /// Length of the text.
        bytes: usize,
        /// The tokenizer's limit.
        max: usize,
    },
    /// The checkpoint's tokenizer produces no token for the text, not even a special one.
    #[error("the tokenizer makes no tokens of the text; send a text with words")]
    NoTokens,
    /// The tokenizer library refused the text.
    #[error("the tokenizer refused the text: {0}")]
    Refused(String),
}
