//! Damaged and unusual checkpoints: one error each, that names the file, the key, what was
//! expected and what was found.

use std::num::NonZeroUsize;
use std::path::Path;

use intentd::engine::{self, EngineKind, EngineOptions};
use intentd::model::Checkpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::checkpoint::{Spec, catalog, write};

/// A small whole checkpoint to damage.
fn whole(name: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let spec: Spec = catalog::spec(name).unwrap();
    write(&spec, directory.path()).unwrap();
    directory
}

/// The embedded model's files to damage.
fn embedded() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let model = Path::new("models/intent-snips");
        std::fs::copy(model.join(file), directory.path().join(file)).unwrap();
    }
    directory
}

fn error(directory: &Path) -> String {
    match Checkpoint::open(directory) {
        Ok(checkpoint) => panic!("opened: {checkpoint:?}"),
        Err(error) => error.to_string(),
    }
}

fn assert_names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing from {error:?}");
    }
}

fn edit(directory: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = directory.join(file);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn each_missing_file_is_named() {
    assert_names(
        &error(Path::new("/nowhere")),
        &["/nowhere", "missing", "config.json"],
    );
    let directory = whole("cased");
    assert_names(
        &error(&directory.path().join("config.json")),
        &["this is a file"],
    );
    for (file, hint) in [
        ("config.json", "configuration"),
        ("vocab.txt", "tokenizer.json or vocab.txt"),
        ("model.safetensors", "model.safetensors.index.json"),
    ] {
        let directory = whole("cased");
        std::fs::remove_file(directory.path().join(file)).unwrap();
        assert_names(&error(directory.path()), &["missing", hint]);
    }
    let directory = whole("cased");
    let weights = directory.path().join("model.safetensors");
    std::fs::rename(weights, directory.path().join("pytorch_model.bin")).unwrap();
    assert_names(
        &error(directory.path()),
        &["pytorch_model.bin", "safetensors"],
    );
}

#[test]
fn each_wrong_configuration_value_is_named() {
    let directory = whole("cased");
    let original = std::fs::read(directory.path().join("config.json")).unwrap();
    for (key, value, expected) in [
        ("model_type", json!("gpt2"), "\"distilbert\""),
        ("quantization_config", json!({"bits": 4}), "f32"),
        ("pruned_heads", json!({"0": [1]}), "none"),
        ("hidden_act", json!("mish"), "gelu_new"),
        ("position_embedding_type", json!("relative_key"), "absolute"),
        ("hidden_size", json!("wide"), "whole number"),
        ("hidden_size", json!(-1), "whole number"),
        ("num_attention_heads", json!(0), "whole number"),
        ("num_attention_heads", json!(7), "divisor of hidden_size"),
        ("layer_norm_eps", json!(-1e-5), "number from 0 to 1"),
        (
            "problem_type",
            json!("clustering"),
            "multi_label_classification",
        ),
        ("id2label", json!([1]), "an object"),
        ("id2label", json!({"zero": "a"}), "whole number"),
        ("id2label", json!({"0": [1]}), "a string"),
        ("id2label", json!({"99": "a"}), "ids below"),
        ("is_decoder", json!(true), "false"),
        ("num_hidden_layers", json!(1_000_000), "1 to 1024"),
        ("max_position_embeddings", json!(1 << 20), "1 to 65536"),
    ] {
        edit(directory.path(), "config.json", |config| {
            config[key] = value.clone()
        });
        assert_names(
            &error(directory.path()),
            &["config.json", key, "expected", expected, "found"],
        );
        std::fs::write(directory.path().join("config.json"), &original).unwrap();
    }
    std::fs::write(directory.path().join("config.json"), "{").unwrap();
    assert_names(&error(directory.path()), &["config.json", "expected JSON"]);
    std::fs::write(directory.path().join("config.json"), "[]").unwrap();
    assert_names(&error(directory.path()), &["a JSON object", "an array"]);
}

#[test]
fn a_configuration_that_does_not_fit_the_tensors_names_both_shapes() {
    for (key, value, tensor) in [
        ("hidden_size", 48, "embeddings"),
        ("intermediate_size", 17, "intermediate.dense.weight"),
        ("max_position_embeddings", 7, "position_embeddings"),
        ("num_hidden_layers", 50, "encoder.layer."),
        ("type_vocab_size", 9, "token_type_embeddings"),
    ] {
        let directory = whole("cased");
        edit(directory.path(), "config.json", |config| {
            config[key] = json!(value)
        });
        assert_names(
            &error(directory.path()),
            &["model.safetensors", tensor, "expected", "found"],
        );
    }
}

/// A repository that was cloned without Git LFS.
#[test]
fn a_pointer_of_git_lfs_is_named() {
    for file in ["model.safetensors", "vocab.txt", "config.json"] {
        let directory = whole("cased");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n";
        std::fs::write(directory.path().join(file), pointer).unwrap();
        assert_names(&error(directory.path()), &[file, "git lfs pull"]);
    }
}

/// Names that the classifier's class does not have in transformers, and labels that are no strings.
#[test]
fn what_nothing_needs_may_be_odd() {
    let directory = whole("cased");
    edit(directory.path(), "config.json", |config| {
        config["architectures"] = json!(["IntentModel"]);
        config["id2label"]["0"] = json!(7);
    });
    let path = directory.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"some_rate\": NaN, ", 1)).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.labels.names().next(), Some("7"));
}

#[test]
fn damaged_weights_are_refused_wherever_they_are_cut() {
    let directory = whole("cased");
    let path = directory.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert_names(&error(directory.path()), &["model.safetensors", "expected"]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    std::fs::write(&path, &longer).unwrap();
    assert_names(&error(directory.path()), &["model.safetensors", "expected"]);
    // A header that claims more than any machine has.
    let mut claims = bytes;
    claims[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &claims).unwrap();
    assert_names(&error(directory.path()), &["model.safetensors", "header"]);
}

#[test]
fn shards_stay_inside_the_directory_and_must_all_be_there() {
    let index = "model.safetensors.index.json";
    let directory = whole("multilabel");
    let map = |value: &mut Value| value["weight_map"].clone();
    let mut shard = String::new();
    edit(directory.path(), index, |value| {
        let map = map(value);
        let first = map.as_object().unwrap().values().next().unwrap();
        shard = first.as_str().unwrap().to_owned();
    });
    std::fs::remove_file(directory.path().join(&shard)).unwrap();
    assert_names(&error(directory.path()), &[&shard, "missing"]);
    for path in ["../model.safetensors", "/etc/passwd", "..", ""] {
        edit(directory.path(), index, |value| {
            value["weight_map"]["classifier.bias"] = json!(path);
        });
        assert_names(
            &error(directory.path()),
            &[index, "classifier.bias", "plain file name"],
        );
    }
    edit(directory.path(), index, |value| *value = json!({}));
    assert_names(&error(directory.path()), &[index, "weight_map"]);
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let directory = whole("cased");
    let path = directory.path().join("vocab.txt");
    let vocab = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{vocab}one\ntoo\nmany\n")).unwrap();
    assert_names(
        &error(directory.path()),
        &["vocab.txt", "vocab_size in config.json"],
    );
    for token in ["[UNK]", "[CLS]", "[SEP]"] {
        std::fs::write(&path, vocab.replace(token, "[GONE]")).unwrap();
        assert_names(&error(directory.path()), &["vocab.txt", token]);
    }
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert_names(&error(directory.path()), &["vocab.txt", "UTF-8"]);
    std::fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
    assert_names(
        &error(directory.path()),
        &["tokenizer.json", "a Hugging Face tokenizer"],
    );
}

/// Other classes take no more than the vocabulary from the file.
fn leave_all_to_tokenizer_json(directory: &Path) {
    let names = json!(["input_ids", "token_type_ids"]);
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names});
    std::fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// What only an odd text or a pair would show in service is found at load.
#[test]
fn a_template_that_does_not_fit_the_embeddings_is_refused() {
    type Damage = fn(&mut Value);
    let damages: [(Damage, &str); 4] = [
        (
            |p| p["special_tokens"]["[SEP]"]["ids"] = json!([999_999]),
            "post_processor ids",
        ),
        (
            |p| p["single"][0]["SpecialToken"]["type_id"] = json!(7),
            "post_processor type ids",
        ),
        (
            |p| p["pair"][3]["Sequence"]["type_id"] = json!(2),
            "post_processor type ids",
        ),
        (|p| *p = Value::Null, "makes no tokens"),
    ];
    for (damage, hint) in damages {
        let directory = embedded();
        leave_all_to_tokenizer_json(directory.path());
        edit(directory.path(), "tokenizer.json", |tokenizer| {
            damage(&mut tokenizer["post_processor"]);
        });
        assert_names(&error(directory.path()), &["tokenizer.json", hint]);
    }
}

/// The room for a text's own tokens came out below zero where the template puts more around a
/// single text than around a pair.
#[test]
fn special_tokens_that_fill_the_model_are_refused() {
    let directory = embedded();
    leave_all_to_tokenizer_json(directory.path());
    edit(directory.path(), "tokenizer.json", |tokenizer| {
        let special = tokenizer["post_processor"]["single"][0].clone();
        let mut single = vec![special; 130];
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        tokenizer["post_processor"]["single"] = Value::Array(single);
    });
    assert_names(
        &error(directory.path()),
        &["config.json", "more than the 130 special tokens"],
    );
}

/// The tokenizer library panics on a character map that it cannot read, overflows the stack when
/// it frees a Unigram model with a long token, and takes the square of a word's length.
#[test]
fn a_tokenizer_that_the_library_does_not_survive_is_refused() {
    type Damage = fn(&mut Value);
    let damages: [(Damage, &str); 3] = [
        (
            |t| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": ""}),
            "a Hugging Face tokenizer",
        ),
        (
            |t| {
                let vocab = json!([["[UNK]", 0.0], ["a".repeat(1 << 20), 0.0]]);
                t["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab});
            },
            "at most 4096 bytes",
        ),
        (
            |t| t["model"]["max_input_chars_per_word"] = json!(100_000),
            "max_input_chars_per_word",
        ),
    ];
    for (damage, hint) in damages {
        let directory = embedded();
        edit(directory.path(), "tokenizer.json", damage);
        assert_names(&error(directory.path()), &["tokenizer.json", hint]);
    }
}

#[test]
fn weights_that_are_not_numbers_fail_the_self_test() {
    let directory = whole("cased");
    let path = directory.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let offset = tensors["classifier.bias"]["data_offsets"][0]
        .as_u64()
        .unwrap();
    let start = header + usize::try_from(offset).unwrap();
    assert!(start + 4 <= end);
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    for kind in [
        EngineKind::Native,
        EngineKind::Candle,
        EngineKind::Reference,
    ] {
        let options = EngineOptions::cpu(kind, NonZeroUsize::MIN);
        let Err(error) = engine::load(&checkpoint, options) else {
            panic!("{kind:?} takes weights that are not numbers");
        };
        assert_names(&error.to_string(), &["self-test", "NaN"]);
    }
}
