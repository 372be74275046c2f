//! The tokenizers' ids against those of Hugging Face transformers, text by text.

use std::path::Path;

use intentd::model::{Checkpoint, EncodeError, Text, TooLong};

use crate::support::checkpoint::{Shape, catalog};
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
        if let Some(tokens) = whole {
            let refusal = EncodeError::TooLong {
                tokens,
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
