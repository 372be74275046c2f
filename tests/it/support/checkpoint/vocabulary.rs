//! The tokenizer: a made-up WordPiece vocabulary and the files that hold it.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{SpecialTokens, TokenizerFiles, TokenizerSpec, write_json};

/// The words which the texts of the golden files are made of, too.
const WORDS: &str = include_str!("../../../golden/words.txt");

/// Every how many words of [`WORDS`] one is left out, to be met as pieces only.
const WORD_HELD_BACK_EVERY: usize = 4;

const ENDINGS: [&str; 24] = [
    "ing", "ed", "er", "est", "ly", "ness", "ment", "tion", "s", "es", "ies", "able", "ful",
    "less", "ist", "ism", "ity", "al", "ic", "ous", "ive", "ize", "ship", "'s",
];

/// Characters besides ASCII, by script: whole tokens and continuations both.
///
/// Hangul, Latin and kana stand composed and decomposed, because stripping accents decomposes text
/// first and so leaves the second form in it.
const LETTER_RANGES: [(char, char); 16] = [
    ('\u{00c0}', '\u{017f}'),
    ('\u{0300}', '\u{030c}'),
    ('\u{0391}', '\u{03c9}'),
    ('\u{0410}', '\u{044f}'),
    ('\u{05d0}', '\u{05ea}'),
    ('\u{0621}', '\u{064a}'),
    ('\u{0905}', '\u{0939}'),
    ('\u{093e}', '\u{094d}'),
    ('\u{1100}', '\u{1112}'),
    ('\u{1161}', '\u{1175}'),
    ('\u{11a8}', '\u{11c2}'),
    ('\u{3041}', '\u{3096}'),
    ('\u{30a1}', '\u{30fa}'),
    ('\u{4e00}', '\u{4e7f}'),
    ('\u{ac00}', '\u{ac3f}'),
    ('\u{1d400}', '\u{1d433}'),
];

/// Characters that stand alone: punctuation, signs, emoji.
const SIGNS: &str = "¡¿«»–—‘’“”…€£¥°±×÷№™©®★☆♥✓→←、。「」！？😀😂😍🎉👍👩💻🏽🌧🎵\u{200d}\u{fe0f}";

/// Makes the vocabulary, in order of ids, without duplicates.
pub(super) fn pieces(spec: &TokenizerSpec) -> Vec<String> {
    let special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let mut pieces = vec!["[PAD]".to_owned()];
    match spec.special_tokens {
        SpecialTokens::Google => {
            pieces.extend((0..99).map(|id| format!("[unused{id}]")));
            pieces.extend(special);
            pieces.extend(ordinary_pieces(spec));
        }
        SpecialTokens::First => {
            pieces.extend(special);
            pieces.extend(ordinary_pieces(spec));
        }
        SpecialTokens::Last => {
            pieces.extend(ordinary_pieces(spec));
            pieces.extend(special);
        }
    }
    let mut seen = std::collections::HashSet::new();
    pieces.retain(|piece| seen.insert(piece.clone()));
    pieces
}

fn ordinary_pieces(spec: &TokenizerSpec) -> Vec<String> {
    let mut pieces = Vec::new();
    for character in ('!'..='~').filter(|c| !(spec.lower_case && c.is_ascii_uppercase())) {
        pieces.push(character.to_string());
        if character.is_ascii_alphanumeric() {
            pieces.push(format!("##{character}"));
        }
    }
    pieces.extend(SIGNS.chars().map(String::from));
    for (first, last) in LETTER_RANGES {
        for letter in first..=last {
            pieces.push(letter.to_string());
            pieces.push(format!("##{letter}"));
        }
    }
    let words = WORDS.lines().enumerate();
    for (_, word) in words.filter(|(index, _)| index % WORD_HELD_BACK_EVERY != 0) {
        pieces.push(word.to_owned());
        if !spec.lower_case {
            pieces.push(capitalised(word));
        }
    }
    pieces.extend(ENDINGS.map(|ending| format!("##{ending}")));
    for consonant in "bcdfghklmnprstvw".chars() {
        for vowel in "aeiou".chars() {
            pieces.push(format!("{consonant}{vowel}"));
            pieces.push(format!("##{consonant}{vowel}"));
        }
    }
    pieces
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Writes the vocabulary in the form which the spec asks for.
pub(super) fn write(
    spec: &TokenizerSpec,
    length_max: usize,
    pieces: &[String],
    directory: &Path,
) -> io::Result<()> {
    let mut config = json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": spec.lower_case,
        "tokenize_chinese_chars": spec.split_chinese,
        "model_max_length": length_max,
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
    });
    // Absent and `null` mean the same to Hugging Face: strip accents when lower-casing.
    if let Some(strip) = spec.strip_accents {
        config["strip_accents"] = json!(strip);
    }
    write_json(&directory.join("tokenizer_config.json"), &config)?;
    match spec.files {
        TokenizerFiles::Vocab => fs::write(directory.join("vocab.txt"), pieces.join("\n") + "\n"),
        TokenizerFiles::Json => write_json(
            &directory.join("tokenizer.json"),
            &tokenizer_json(spec, pieces),
        ),
    }
}

fn tokenizer_json(spec: &TokenizerSpec, pieces: &[String]) -> Value {
    let vocabulary: Map<String, Value> = pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.clone(), json!(id)))
        .collect();
    let id = |token: &str| vocabulary[token].clone();
    let added_tokens: Vec<Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .map(|token| {
            json!({
                "id": id(token), "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let special =
        |token: &str, type_id: u32| json!({"SpecialToken": {"id": token, "type_id": type_id}});
    let sequence = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    let template = |token: &str| json!({"id": token, "ids": [id(token)], "tokens": [token]});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": spec.split_chinese,
            "strip_accents": spec.strip_accents,
            "lowercase": spec.lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
            "pair": [
                special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0),
                sequence("B", 1), special("[SEP]", 1),
            ],
            "special_tokens": {"[CLS]": template("[CLS]"), "[SEP]": template("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    })
}
