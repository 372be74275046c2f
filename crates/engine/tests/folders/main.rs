//! Folders as teams bring them, against what Hugging Face transformers makes of each.
//!
//! `tests/folders` has the cases, and says how they are made. For each, the tokens of every text and the logits of some have
//! to be those of transformers, or the folder is refused for a reason in [`REFUSED`]. A folder that transformers itself does
//! not load may be refused for any reason.

mod case;

use intentd_engine::{Cpu, CpuOptions, Engine, RaggedBatch, Reference};
use intentd_model::{Checkpoint, EncodeError, Encoded, Text, TooLong};

use crate::case::{Case, Golden, GoldenText};

/// Largest difference of logits.
const TOLERANCE: f32 = 1e-4;

/// Folders that transformers loads and that are refused here, with a part of the message.
const REFUSED: [(&str, &str); 24] = [
    ("config silu", "hidden_act"),
    ("config tanh", "hidden_act"),
    ("config decoder", "is_decoder"),
    ("config relative positions", "position_embedding_type"),
    ("config unknown family", "model_type"),
    (
        "config names a Japanese tokenizer",
        "config.json: tokenizer_class",
    ),
    ("albert two layers in a group", "inner_group_num"),
    (
        "class BertJapaneseTokenizer",
        "tokenizer_config.json: tokenizer_class",
    ),
    (
        "class MPNetTokenizer",
        "tokenizer_config.json: tokenizer_class",
    ),
    (
        "class LlamaTokenizer",
        "tokenizer_config.json: tokenizer_class",
    ),
    (
        "class SomeTokenizer",
        "tokenizer_config.json: tokenizer_class",
    ),
    (
        "added_tokens.json beyond the embedding",
        "resize_token_embeddings",
    ),
    // transformers gives an empty text no token at all, on which its model fails.
    ("no post_processor, generic", "post_processor"),
    ("a label without a name", "id2label"),
    (
        "class ConvBertTokenizer",
        "tokenizer_config.json: tokenizer_class",
    ),
    (
        "class without a name",
        "tokenizer_config.json: tokenizer_class",
    ),
    (
        "a role of every class within model_specific_special_tokens",
        "cls_token",
    ),
    (
        "a role of every class within extra_special_tokens",
        "cls_token",
    ),
    ("model_name", "config.json: model_name"),
    ("roberta, padding with id 0", "pad_token_id"),
    ("unknown key", "tokenizer_config.json: turn_words_around"),
    // transformers makes a vocabulary of five tokens, or one of the pieces of nothing.
    ("no tokenizer", "tokenizer.json or vocab.txt"),
    ("xlm-roberta without tokenizer.json", "save_pretrained"),
    (
        "public daigo/bert-base-japanese-sentiment",
        "BertJapaneseTokenizer",
    ),
];

#[test]
fn folders_are_as_in_transformers() {
    let golden = Golden::read();
    assert!(golden.texts.len() >= 200, "{} texts", golden.texts.len());
    assert!(golden.cases.len() >= 200, "{} cases", golden.cases.len());
    let mut wrong = Vec::new();
    let mut loaded = 0;
    for case in &golden.cases {
        let found = match Checkpoint::read(&golden.files(case)) {
            Ok(checkpoint) => {
                loaded += 1;
                compare(&golden, case, &checkpoint)
            }
            Err(error) => refusal(case, &error.to_string()),
        };
        wrong.extend(found.err().map(|found| format!("{}: {found}", case.name)));
    }
    println!("{loaded} of {} load", golden.cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a folder is rightly refused.
fn refusal(case: &Case, message: &str) -> Result<(), String> {
    let expected = REFUSED.iter().find(|(name, _)| *name == case.name);
    match expected {
        Some((_, part)) if message.contains(part) => Ok(()),
        _ if case.fails.is_some() => Ok(()),
        _ => Err(format!("refused: {message}")),
    }
}

fn compare(golden: &Golden, case: &Case, checkpoint: &Checkpoint) -> Result<(), String> {
    if REFUSED.iter().any(|(name, _)| *name == case.name) {
        return Err("not refused".to_owned());
    }
    let Some(expected) = golden.ids(case) else {
        return Ok(());
    };
    let tokenizer = &checkpoint.tokenizer;
    if Some(tokenizer.max_tokens()) != case.length {
        return Err(format!(
            "{} tokens a text, not {:?}",
            tokenizer.max_tokens(),
            case.length
        ));
    }
    let labels: Vec<&str> = checkpoint.labels.names().collect();
    if labels != case.labels {
        return Err(format!("labels {labels:?}, not {:?}", case.labels));
    }
    let mut encoded = Vec::new();
    for (text, expected) in golden.texts.iter().zip(expected) {
        let text = Text::from(text);
        let (ids, types) = expected.parts();
        let found = tokenizer.encode(&text, TooLong::Truncate);
        if let Ok(found) = &found {
            let whole = tokenizer.encode_whole(&text, TooLong::Truncate);
            if whole.as_ref() != Ok(found) {
                return Err(format!("{text:?}: {found:?}, and at once {whole:?}"));
            }
        }
        match &found {
            Ok(found) if found.ids == ids && found.type_ids == types => {}
            // The model's own limits, about which transformers says nothing or fails later.
            Err(EncodeError::Padding { .. })
                if ids.iter().any(|id| is_padding(checkpoint, *id)) => {}
            Err(EncodeError::PairUnsupported) if types.contains(&1) => {}
            Err(EncodeError::NoTokens) if ids.is_empty() => {}
            other => return Err(format!("{text:?}: {other:?}, not {ids:?} {types:?}")),
        }
        encoded.push(found.ok());
    }
    logits(case, checkpoint, &encoded)
}

fn is_padding(checkpoint: &Checkpoint, id: u32) -> bool {
    checkpoint.config.uncounted_id() == Some(id as usize)
}

/// Compares the logits of the reference engine and of the CPU engine with those of transformers.
fn logits(case: &Case, checkpoint: &Checkpoint, encoded: &[Option<Encoded>]) -> Result<(), String> {
    let mut batch = RaggedBatch::new();
    let mut expected = Vec::new();
    for (text, logits) in case.logits() {
        if let Some(encoded) = &encoded[text] {
            batch.push(&encoded.ids, &encoded.type_ids);
            expected.push((text, logits));
        }
    }
    let options = CpuOptions::f32(std::num::NonZeroUsize::MIN);
    let engines: [Box<dyn Engine>; 2] = [
        Box::new(Reference::load(checkpoint).map_err(|error| error.to_string())?),
        Box::new(Cpu::load(checkpoint, options).map_err(|error| error.to_string())?),
    ];
    for mut engine in engines {
        let name = engine.description();
        let logits = engine.forward(&batch).map_err(|error| error.to_string())?;
        for ((text, expected), found) in expected.iter().zip(logits.rows()) {
            let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
            if found.len() != expected.len() || !found.iter().zip(*expected).all(is_near) {
                return Err(format!("{name}: text {text}: {found:?}, not {expected:?}"));
            }
        }
    }
    Ok(())
}

impl From<&GoldenText> for Text {
    fn from(text: &GoldenText) -> Self {
        match text {
            GoldenText::Single(text) => Self::Single(text.clone()),
            GoldenText::Pair(first, second) => Self::Pair(first.clone(), second.clone()),
        }
    }
}
