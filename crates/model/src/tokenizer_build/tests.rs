//! The rules by which a tokenizer is put together, on random combinations of keys.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::BertNormalizer;

use super::super::config::ModelConfig;
use super::super::encoding::{Text, TooLong};
use super::super::files::Files;
use super::super::tokenizer::Tokenizer;

const VOCAB: [&str; 10] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "A", "##a", "play", "中",
];

fn tokenizer_json(normalizer: &Value) -> Value {
    let vocab: Map<String, Value> = VOCAB
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// A folder of these files.
fn folder(files: &[(&str, String)]) -> (Files, ModelConfig) {
    let config = json!({"vocab_size": 40, "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1,
        "max_position_embeddings": 16});
    let mut all = vec![(
        "config.json".to_owned(),
        config.to_string().into_bytes().into(),
    )];
    all.extend(
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes().into())),
    );
    let files = Files::Memory {
        origin: "test".to_owned(),
        files: all,
    };
    let config = ModelConfig::read(&files).unwrap();
    (files, config)
}

fn flag() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<bool>().prop_map(|flag| Some(Value::Bool(flag))),
    ]
}

fn class() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(proptest::sample::select(vec![
        "BertTokenizer",
        "BertTokenizerFast",
        "DistilBertTokenizer",
        "ElectraTokenizerFast",
        "PreTrainedTokenizerFast",
        "RobertaTokenizer",
        "BertJapaneseTokenizer",
    ]))
}

/// Any value that a key might have by mistake.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-z\\[\\]]{0,8}".prop_map(Value::String),
        proptest::collection::vec("[a-zA-Z\\[\\]]{0,6}", 0..3).prop_map(|list| json!(list)),
        ("[a-z]{1,4}", any::<bool>())
            .prop_map(|(content, special)| json!({"content": content, "special": special})),
        ("[0-9a]{1,2}", "[a-z]{0,4}").prop_map(|(id, content)| json!({id: {"content": content}})),
    ]
}

const KEYS: [&str; 20] = [
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "keep_accents",
    "add_prefix_space",
    "trim_offsets",
    "model_max_length",
    "max_len",
    "truncation_side",
    "model_input_names",
    "split_special_tokens",
    "added_tokens_decoder",
    "extra_special_tokens",
    "additional_special_tokens",
    "unk_token",
    "cls_token",
    "mask_token",
    "image_token",
    "tokenizer_class",
    "never_split",
];

proptest! {
    /// Case, accents and Chinese characters are those of the configuration or of the class; of `tokenizer.json` only for
    /// the class that leaves everything to it.
    #[test]
    fn the_configuration_wins(
        class in class(),
        lowercase in flag(),
        accents in flag(),
        chinese in flag(),
        json in (any::<bool>(), any::<bool>(), proptest::option::of(any::<bool>())),
    ) {
        let (json_lowercase, json_chinese, json_accents) = json;
        let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": json_chinese,
            "strip_accents": json_accents, "lowercase": json_lowercase});
        let mut config = Map::new();
        for (key, value) in [("do_lower_case", &lowercase), ("strip_accents", &accents), ("tokenize_chinese_chars", &chinese)] {
            config.extend(value.clone().map(|value| (key.to_owned(), value)));
        }
        config.extend(class.map(|class| ("tokenizer_class".to_owned(), json!(class))));
        let (files, model) = folder(&[
            ("tokenizer.json", tokenizer_json(&normalizer).to_string()),
            ("tokenizer_config.json", Value::Object(config).to_string()),
        ]);
        let tokenizer = Tokenizer::read(&files, &model);
        let flag = |value: &Option<Value>| value.as_ref().and_then(Value::as_bool);
        let is_null = |value: &Option<Value>| value.as_ref().is_some_and(Value::is_null);
        let expected = match class {
            // Its vocabulary is another; the other splits words with MeCab.
            Some("RobertaTokenizer" | "BertJapaneseTokenizer") => {
                prop_assert!(tokenizer.is_err());
                return Ok(());
            }
            // No flag for the library in Python.
            Some("BertTokenizer" | "BertTokenizerFast" | "DistilBertTokenizer" | "ElectraTokenizerFast") | None
                if is_null(&lowercase) || is_null(&chinese) =>
            {
                prop_assert!(tokenizer.is_err());
                return Ok(());
            }
            Some("PreTrainedTokenizerFast") => BertNormalizer::new(true, json_chinese, json_accents, json_lowercase),
            _ => BertNormalizer::new(
                true,
                flag(&chinese).unwrap_or(true),
                flag(&accents),
                flag(&lowercase).unwrap_or(true),
            ),
        };
        let tokenizer = tokenizer.unwrap();
        let Some(NormalizerWrapper::BertNormalizer(found)) = tokenizer.library().get_normalizer() else {
            return Err(TestCaseError::fail("another normalizer"));
        };
        prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }

    /// Whatever the keys say, a folder is loaded or refused, and a tokenizer that is loaded reads every text in one way.
    #[test]
    fn odd_values_are_read_or_refused(
        keys in proptest::collection::vec((proptest::sample::select(KEYS.to_vec()), odd()), 0..5),
        map in proptest::collection::vec((proptest::sample::select(KEYS.to_vec()), odd()), 0..3),
        added in proptest::collection::vec(("[a-z\\[\\]]{0,5}", odd()), 0..3),
        by_vocabulary in any::<bool>(),
        text in "[ a-zA\\[\\]中,.]{0,30}",
    ) {
        let object = |entries: Vec<(&str, Value)>| {
            let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
            Value::Object(entries.collect()).to_string()
        };
        let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true});
        let vocabulary = match by_vocabulary {
            true => ("vocab.txt", VOCAB.join("\n")),
            false => ("tokenizer.json", tokenizer_json(&normalizer).to_string()),
        };
        let added: Map<String, Value> = added.into_iter().collect();
        let (files, model) = folder(&[
            vocabulary,
            ("tokenizer_config.json", object(keys)),
            ("special_tokens_map.json", object(map)),
            ("added_tokens.json", Value::Object(added).to_string()),
        ]);
        let Ok(tokenizer) = Tokenizer::read(&files, &model) else {
            return Ok(());
        };
        for text in [Text::Single(text.clone()), Text::Pair(text, "a play".to_owned())] {
            let found = tokenizer.encode(&text, TooLong::Truncate);
            prop_assert_eq!(&found, &tokenizer.encode_whole(&text, TooLong::Truncate));
            if let Ok(found) = found {
                prop_assert!(found.ids.iter().all(|id| (*id as usize) < model.vocab_size));
                prop_assert!(found.ids.len() <= tokenizer.max_tokens());
            }
        }
    }
}
