//! Texts through tokenizers.

use std::sync::OnceLock;

use intentd::model::{Checkpoint, EncodeError, Encoded, Text, Tokenizer, TooLong};

use super::{memory, split};

/// The embedded model's tokenizer with its own maximum length, and with one that short texts exceed.
struct Tokenizers {
    vocab_size: usize,
    long: Tokenizer,
    short: Tokenizer,
}

const SHORT_TOKENS: usize = 16;

fn tokenizers() -> &'static Tokenizers {
    static TOKENIZERS: OnceLock<Tokenizers> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        let Checkpoint {
            mut config,
            tokenizer: long,
            ..
        } = Checkpoint::embedded().expect("the embedded model is sound");
        config.max_positions = SHORT_TOKENS;
        let tokenizer = include_bytes!("../../models/intent-snips/tokenizer.json");
        let short = Tokenizer::read(&memory(&[("tokenizer.json", tokenizer)]), &config);
        Tokenizers {
            vocab_size: config.vocab_size,
            long,
            short: short.expect("the tokenizer fits a shorter model"),
        }
    })
}

/// A text or a pair. Bit 0 of the first byte refuses long texts, bit 1 makes a pair of the parts before and
/// after the separator, bit 2 selects the short tokenizer.
pub fn tokenizer_text(data: &[u8]) {
    let [flags, data @ ..] = data else {
        return;
    };
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = if flags & 2 == 0 {
        Text::Single(string(data))
    } else {
        let (first, second) = split(data);
        Text::Pair(string(first), string(second))
    };
    let too_long = if flags & 1 == 0 {
        TooLong::Truncate
    } else {
        TooLong::Refuse
    };
    let tokenizers = tokenizers();
    let short = flags & 4 != 0;
    let tokenizer = if short {
        &tokenizers.short
    } else {
        &tokenizers.long
    };
    let encoded = check_encoding(tokenizer, &text, too_long, tokenizers.vocab_size, 2);
    if short && matches!(text, Text::Single(_)) && too_long == TooLong::Truncate {
        // The ids of the shorter model are the beginning of those of the longer one.
        let short = encoded.expect("a text that may be truncated is encoded");
        let long = tokenizers.long.encode_whole(&text, TooLong::Truncate);
        let long = long.expect("a text that may be truncated is encoded").ids;
        assert_eq!(short.truncated, long.len() > SHORT_TOKENS);
        let end = short.ids.len() - 1;
        assert_eq!(short.ids[..end], long[..end]);
        assert_eq!(short.ids.last(), long.last(), "[SEP]");
    }
}

/// Encodes `text` with and without cached words, and checks the invariants that the engine relies on.
pub(super) fn check_encoding(
    tokenizer: &Tokenizer,
    text: &Text,
    too_long: TooLong,
    vocab_size: usize,
    type_vocab_size: u32,
) -> Result<Encoded, EncodeError> {
    let encoded = tokenizer.encode(text, too_long);
    // Words are cached only for single texts.
    if matches!(text, Text::Single(_)) {
        let whole = tokenizer.encode_whole(text, too_long);
        assert_eq!(encoded, whole, "cached words change the result");
    }
    match &encoded {
        Ok(Encoded { ids, type_ids, .. }) => {
            assert!(!ids.is_empty() && ids.len() <= tokenizer.max_tokens());
            assert_eq!(ids.len(), type_ids.len());
            assert!(ids.iter().all(|id| (*id as usize) < vocab_size));
            assert!(type_ids.iter().all(|id| *id < type_vocab_size));
        }
        Err(EncodeError::TooLong { max }) => {
            assert_eq!(too_long, TooLong::Refuse);
            assert_eq!(*max, tokenizer.max_tokens());
        }
        Err(_) => {}
    }
    encoded
}
