//! The WordPiece vocabulary, trained on the run's own texts, and the tokenizer around it.
//!
//! The tokenizers crate numbers the letters inside words (`##a`) in the order of a randomly seeded hash map,
//! and those numbers break ties between merges, so two runs would give different vocabularies. Here all
//! letters are entered first, in order, so that the map has no influence.

use std::collections::BTreeSet;
use std::path::Path;

use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, Tokenizer, Trainer,
};

use super::error::TrainError;
use intentd_base::input;

/// The special tokens, in the order of their ids.
pub(crate) const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// The id of `[PAD]`.
pub(crate) const PAD: u32 = 0;
/// The id of `[UNK]`.
pub(crate) const UNKNOWN: u32 = 1;

/// The prefix of a piece that continues a word.
const CONTINUES: &str = "##";

/// Trains a lower-case WordPiece tokenizer of at most `size` entries. They include letters and special tokens,
/// which are kept even if they are more.
///
/// # Errors
/// When the tokenizers crate refuses the texts or the settings.
pub(crate) fn train<'a>(
    texts: impl Iterator<Item = &'a str>,
    size: usize,
) -> Result<Tokenizer, TrainError> {
    let words: Vec<String> = texts
        .map(split)
        .collect::<Result<Vec<_>, _>>()
        .map_err(TrainError::tokenizer)?
        .concat();
    let mut first: Vec<AddedToken> = SPECIAL_TOKENS
        .iter()
        .map(|token| AddedToken::from(*token, true))
        .collect();
    first.extend(
        letters(&words)
            .into_iter()
            .map(|letter| AddedToken::from(letter, false)),
    );
    let mut trainer = WordPieceTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(first)
        .continuing_subword_prefix(CONTINUES.to_owned())
        .build();
    trainer
        .feed(words.iter(), |word| Ok(vec![word.to_owned()]))
        .map_err(TrainError::tokenizer)?;
    let mut model = WordPiece::default();
    trainer.train(&mut model).map_err(TrainError::tokenizer)?;
    assemble(model)
}

/// Reads a tokenizer file.
///
/// # Errors
/// When the file cannot be read or is not a tokenizer.
pub(crate) fn read(path: &Path) -> Result<Tokenizer, TrainError> {
    let content = input::read(path, input::VOCABULARY).map_err(TrainError::io(path))?;
    Tokenizer::from_bytes(content)
        .map_err(|e| TrainError::Tokenizer(format!("{}: {e}", path.display())))
}

/// Returns the token ids of each text, including special tokens, truncated to `length_max`.
///
/// # Errors
/// When the tokenizer fails on a text.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    texts: &[&str],
    length_max: usize,
) -> Result<Vec<Vec<u32>>, TrainError> {
    let encodings = tokenizer
        .encode_batch_fast(texts.to_vec(), true)
        .map_err(TrainError::tokenizer)?;
    Ok(encodings
        .iter()
        .map(|encoding| {
            let ids = encoding.get_ids();
            let mut kept = ids[..ids.len().min(length_max)].to_vec();
            if let (true, Some(last), Some(end)) =
                (ids.len() > length_max, kept.last_mut(), ids.last())
            {
                *last = *end;
            }
            kept
        })
        .collect())
}

/// Splits a text into words exactly as the finished tokenizer will.
fn split(text: &str) -> tokenizers::Result<Vec<String>> {
    let mut normalized = NormalizedString::from(text);
    normalizer().normalize(&mut normalized)?;
    let mut pieces = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut pieces)?;
    Ok(pieces
        .get_splits(OffsetReferential::Original, OffsetType::Byte)
        .into_iter()
        .map(|(word, _, _)| word.to_owned())
        .collect())
}

/// All single letters, as word starts and as continuations, in order. They include printable ASCII, so that any
/// ASCII text can be spelt.
fn letters(words: &[String]) -> Vec<String> {
    let ascii = ('!'..='~').filter(|c| !c.is_ascii_uppercase());
    let starts: BTreeSet<char> = words
        .iter()
        .flat_map(|word| word.chars())
        .chain(ascii)
        .collect();
    let continued: BTreeSet<char> = words
        .iter()
        .flat_map(|word| word.chars().skip(1))
        .chain(starts.iter().copied().filter(char::is_ascii_alphanumeric))
        .collect();
    let starts = starts.into_iter().map(String::from);
    starts
        .chain(continued.into_iter().map(|c| format!("{CONTINUES}{c}")))
        .collect()
}

fn normalizer() -> BertNormalizer {
    // Clean control characters, split Chinese characters, strip accents, lower-case.
    BertNormalizer::new(true, true, Some(true), true)
}

fn assemble(model: WordPiece) -> Result<Tokenizer, TrainError> {
    let special = SPECIAL_TOKENS.map(|token| (token.to_owned(), model.token_to_id(token)));
    let mut with_ids = Vec::new();
    for (token, id) in special {
        let id = id.ok_or_else(|| TrainError::Tokenizer(format!("{token} has no id")))?;
        with_ids.push((token, id));
    }
    let processor = TemplateProcessing::builder()
        .try_single("[CLS] $A [SEP]")
        .and_then(|builder| builder.try_pair("[CLS] $A [SEP] $B:1 [SEP]:1"))
        .map_err(TrainError::tokenizer)?
        .special_tokens(vec![with_ids[2].clone(), with_ids[3].clone()])
        .build()
        .map_err(TrainError::tokenizer)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(normalizer()))
        .map_err(TrainError::tokenizer)?;
    tokenizer
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(processor))
        .with_decoder(Some(WordPieceDecoder::new(CONTINUES.to_owned(), true)));
    tokenizer
        .add_special_tokens(
            SPECIAL_TOKENS
                .map(|token| AddedToken::from(token, true))
                .to_vec(),
        )
        .map_err(TrainError::tokenizer)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] = [
        "Play some jazz",
        "playing the blues now",
        "Café table for two",
        "rain, rainy, raining",
    ];

    #[test]
    fn two_trainings_give_the_same_file() {
        let json = || {
            let tokenizer = train(TEXTS.into_iter(), 140).expect("trains");
            tokenizer.to_string(true).expect("serialises")
        };
        let first = json();
        for _ in 0..4 {
            assert_eq!(json(), first);
        }
    }

    #[test]
    fn special_tokens_come_first_and_frame_a_text() {
        let tokenizer = train(TEXTS.into_iter(), 140).expect("trains");
        for (id, token) in SPECIAL_TOKENS.iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), u32::try_from(id).ok());
        }
        let ids = encode(&tokenizer, &["CAFE zzz", ""], 64).expect("encodes");
        assert_eq!((ids[0][0], ids[0].last()), (2, Some(&3)));
        assert!(!ids[0].contains(&UNKNOWN), "any ASCII text can be spelt");
        assert_eq!(ids[1], [2, 3]);
    }

    #[test]
    fn a_truncated_text_ends_with_the_separator() {
        let tokenizer = train(TEXTS.into_iter(), 140).expect("trains");
        let ids = encode(&tokenizer, &["a b c d e f g h"], 5).expect("encodes");
        assert_eq!(ids[0].len(), 5);
        assert_eq!(ids[0].last(), Some(&3));
    }
}
