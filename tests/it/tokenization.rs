//! The tokenizers' ids against those of Hugging Face transformers, text by text.

use std::path::Path;

use intentd::model::{Checkpoint, EncodeError, Text, TooLong};

use crate::support::checkpoint::{Shape, catalog, write};
use crate::support::golden::{self, Covers, Ids, Texts};

const MISMATCHES_SHOWN: usize = 5;

#[test]
fn uncased_tokenizer_json() {
    check_random("base");
}

#[test]
fn cased_vocabulary_file() {
    check_random("cased");
}

#[test]
fn uncased_vocabulary_file_without_chinese_splitting() {
    check_random("multilabel");
}

#[test]
fn uncased_vocabulary_file_with_accents() {
    check_random("bf16");
}

#[test]
fn embedded_model() {
    let ids: Ids = golden::read("intent-snips.ids.json").unwrap();
    let directory = golden::embedded(Covers::Tokenizer, &ids.sha256).unwrap();
    check(&directory, &ids);
}

fn check_random(name: &str) {
    let ids: Ids = golden::read(&format!("{name}.ids.json")).unwrap();
    let mut spec = catalog::spec(name).unwrap();
    // The tokenizer is the same with a small network, and BERT-base takes seconds to write.
    let positions = spec.shape.positions;
    spec.shape = Shape {
        layers: 1,
        hidden: 8,
        heads: 1,
        intermediate: 8,
        positions,
    };
    let directory = golden::checkpoint(&spec, Covers::Tokenizer, &ids.sha256).unwrap();
    check(directory.path(), &ids);
}

fn check(directory: &Path, golden: &Ids) {
    let texts: Texts = golden::read("texts.json").unwrap();
    let tokenizer = Checkpoint::open(directory).unwrap().tokenizer;
    assert_eq!(tokenizer.max_tokens(), golden.length_max);
    assert_eq!(texts.tokenization.len(), golden.ids.len());
    assert!(texts.tokenization.len() >= 2_000);

    let mut mismatches = Vec::new();
    for (index, (text, ids)) in texts.tokenization.iter().zip(&golden.ids).enumerate() {
        let text = Text::Single(text.expand());
        let encoded = tokenizer.encode(&text, TooLong::Truncate).unwrap();
        assert_eq!(encoded.type_ids, vec![0; encoded.ids.len()], "text {index}");
        let whole = golden.cut.get(&index).copied();
        assert_eq!(encoded.truncated, whole.is_some(), "text {index}");
        if whole.is_some() {
            let refusal = EncodeError::TooLong {
                max: golden.length_max,
            };
            assert_eq!(
                tokenizer.encode(&text, TooLong::Refuse),
                Err(refusal),
                "text {index}"
            );
        }
        if encoded.ids != *ids {
            mismatches.push(format!("text {index}: {:?}, not {ids:?}", encoded.ids));
        }
    }
    let shown = mismatches.iter().take(MISMATCHES_SHOWN);
    let shown: String = shown.map(|mismatch| format!("{mismatch}\n")).collect();
    assert!(
        mismatches.is_empty(),
        "{} texts differ:\n{shown}",
        mismatches.len()
    );
}

/// What is remembered of words gives the ids that the library gives to the whole text, whichever
/// words came before.
#[test]
fn remembered_words_change_no_id() {
    use proptest::prelude::*;
    let pieces = prop_oneof![
        4 => "[ -~]{0,24}",
        2 => "[a-zA-Z']{1,9} ",
        1 => "(\\[MASK\\]|\\[mask\\]|\\[|\t|\r\n|\u{1}|\u{b}|\u{7f}|\u{301}|é|日)",
        1 => "[a-z]{30,120}",
    ];
    let texts = proptest::collection::vec(pieces, 0..12);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for name in ["cased", "multilabel", "bf16"] {
        let directory = tempfile::tempdir().unwrap();
        write(&catalog::spec(name).unwrap(), directory.path()).unwrap();
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let tokenizer = &checkpoint.tokenizer;
        let same = |pieces: Vec<String>| {
            let text = Text::Single(pieces.concat());
            for too_long in [TooLong::Truncate, TooLong::Refuse] {
                let expected = tokenizer.encode_whole(&text, too_long);
                // Twice: what was unknown is known then.
                prop_assert_eq!(&tokenizer.encode(&text, too_long), &expected);
                prop_assert_eq!(&tokenizer.encode(&text, too_long), &expected);
            }
            Ok(())
        };
        runner.run(&texts, same).unwrap();
    }
}

/// Only the beginning of a long text is read; the ids are those of reading all of it.
#[test]
fn long_texts_are_cut_as_if_they_had_been_read_whole() {
    let checkpoint = Checkpoint::embedded().unwrap();
    let file = "models/intent-snips/tokenizer.json";
    let mut library = tokenizers::Tokenizer::from_file(file).unwrap();
    let max_length = checkpoint.tokenizer.max_tokens();
    let truncation = tokenizers::TruncationParams {
        max_length,
        ..tokenizers::TruncationParams::default()
    };
    library.with_truncation(Some(truncation)).unwrap();
    let texts = [
        "play ".repeat(20_000),
        "supercalifragilistic\u{301} ".repeat(5_000),
        "x".repeat(50_000),
        format!("{} music", " ".repeat(50_000)),
        format!("{} music and more", "\u{200b} ".repeat(20_000)),
        "[SEP] 日本語 naïve\n".repeat(3_000),
        format!("{} {}", "y".repeat(30_000), "weather today ".repeat(1_000)),
    ];
    for text in texts {
        let expected = library.encode(text.as_str(), true).unwrap();
        let found = checkpoint
            .tokenizer
            .encode(&Text::Single(text), TooLong::Truncate)
            .unwrap();
        assert_eq!(found.ids, expected.get_ids());
    }
}

/// Each piece that was cut off one text of a pair was joined with each of the other: two and a half
/// million sequences of 128 tokens for this pair.
#[test]
fn long_pairs_take_memory_by_their_length_not_by_its_square() {
    let tokenizer = Checkpoint::embedded().unwrap().tokenizer;
    let long = || "?".repeat(100_000);
    let encoded = tokenizer
        .encode(&Text::Pair(long(), long()), TooLong::Truncate)
        .unwrap();
    assert!(encoded.truncated);
    assert_eq!(encoded.ids.len(), tokenizer.max_tokens());
}

/// A tokenizer that looks for an added token in normalized text is the library's as a whole; its long texts are
/// cut at a blank, and refused where there is none.
#[test]
fn long_texts_of_other_tokenizers_are_cut_at_a_blank_or_refused() {
    for side in ["right", "left"] {
        let directory = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir("models/intent-snips").unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let edit = |file: &str, change: &dyn Fn(&mut serde_json::Value)| {
            let path = directory.path().join(file);
            let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            change(&mut json);
            std::fs::write(&path, json.to_string()).unwrap();
        };
        edit("tokenizer_config.json", &|json| {
            json["truncation_side"] = side.into()
        });
        let by_need = Checkpoint::open(directory.path()).unwrap().tokenizer;
        edit("tokenizer.json", &|json| {
            json["added_tokens"][0]["normalized"] = true.into()
        });
        let whole = Checkpoint::open(directory.path()).unwrap().tokenizer;
        assert!(by_need.reads_by_need() && !whole.reads_by_need());
        let text = Text::Single(format!("weather {}jazz", "play ".repeat(60_000)));
        let expected = by_need.encode(&text, TooLong::Truncate).unwrap();
        assert_eq!(
            whole.encode(&text, TooLong::Truncate).unwrap(),
            expected,
            "{side}"
        );
        let blanks = "play ".repeat(40_000);
        let head = "!".repeat(3000);
        for text in [format!("{head} {blanks}"), format!("{blanks} {head}")] {
            let text = Text::Single(text);
            let expected = by_need.encode(&text, TooLong::Truncate);
            assert_eq!(whole.encode(&text, TooLong::Truncate), expected, "{side}");
        }
        let text = Text::Single("!".repeat(200_000));
        let refused = whole.encode(&text, TooLong::Truncate);
        assert!(matches!(
            refused,
            Err(EncodeError::TooLarge { bytes: 200_000, .. })
        ));
        assert!(by_need.encode(&text, TooLong::Truncate).is_ok());
    }
}
