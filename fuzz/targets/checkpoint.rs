//! The files of a checkpoint.

use std::sync::{Arc, OnceLock};

use intentd::model::{
    Activation, BERT, Checkpoint, Files, Labels, ModelConfig, Text, Tokenizer, TooLong, Weights,
};

use super::tokenizer::check_encoding;
use super::{memory, split};

/// The configuration of the tiny checkpoints in these targets.
fn tiny_config() -> ModelConfig {
    ModelConfig {
        family: &BERT,
        vocab_size: 32,
        hidden_size: 2,
        embedding_size: 2,
        layers: 1,
        layer_groups: 1,
        heads: 1,
        intermediate_size: 2,
        first_position: 0,
        max_positions: 8,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        activation: Activation::Gelu,
        tokenizer_class: None,
        scoring: None,
        id2label: None,
    }
}

/// `config.json`, with fixed tiny weights and a fixed tiny vocabulary.
pub fn checkpoint_config(data: &[u8]) {
    static OTHERS: OnceLock<[(String, Arc<[u8]>); 2]> = OnceLock::new();
    let others = OTHERS.get_or_init(|| {
        [
            ("model.safetensors".to_owned(), tiny_weights().into()),
            ("vocab.txt".to_owned(), TINY_VOCABULARY.as_bytes().into()),
        ]
    });
    let mut files = others.to_vec();
    files.push(("config.json".to_owned(), data.into()));
    let files = Files::Memory {
        origin: "fuzz".to_owned(),
        files,
    };
    let config = match ModelConfig::read(&files) {
        Ok(config) => config,
        Err(error) => return check_message(&error.to_string(), data.len()),
    };
    assert_eq!(config.head_size() * config.heads, config.hidden_size);
    // Names for the rows of a classifier of eight labels, whatever the shape is.
    match Labels::new(&files, config.id2label.as_deref(), 8, config.scoring) {
        Ok(labels) => {
            assert_eq!(labels.len(), 8);
            let scores = labels.scores(&[0.5, -1.0, 3.0, 0.0, 1e30, -1e30, 2.0, 2.0]);
            assert!(scores.iter().all(|score| score.score.is_finite()));
        }
        Err(error) => check_message(&error.to_string(), data.len()),
    }
    match Checkpoint::read(&files) {
        Ok(checkpoint) => assert_eq!(checkpoint.config, config),
        Err(error) => check_message(&error.to_string(), data.len()),
    }
}

/// An error repeats what it found, so it may be as long as the file, but not much longer.
fn check_message(message: &str, bytes: usize) {
    // A character of one byte is escaped as up to six, and escaped again within its key.
    let longest = 1000 + 16 * bytes;
    assert!(message.len() <= longest, "{} bytes", message.len());
}

const TINY_VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##a\n##b\nplay\n##ing\n'\n";

/// `j` and `tokenizer.json`; `a` and `added_tokens.json`, or `m` and `special_tokens_map.json`, beside a fixed vocabulary; or
/// another letter and `vocab.txt`. After a separator each follow
/// `tokenizer_config.json` and a text, of which 64 bytes are encoded in addition to the fixed ones.
pub fn checkpoint_tokenizer(data: &[u8]) {
    let [kind, data @ ..] = data else {
        return;
    };
    let (content, others) = split(data);
    let (settings, text) = split(others);
    let mut files = match *kind {
        b'j' => vec![("tokenizer.json", content)],
        b'a' => vec![
            ("added_tokens.json", content),
            ("vocab.txt", TINY_VOCABULARY.as_bytes()),
        ],
        b'm' => vec![
            ("special_tokens_map.json", content),
            ("vocab.txt", TINY_VOCABULARY.as_bytes()),
        ],
        _ => vec![("vocab.txt", content)],
    };
    if !settings.is_empty() {
        files.push(("tokenizer_config.json", settings));
    }
    let config = tiny_config();
    let tokenizer = match Tokenizer::read(&memory(&files), &config) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return check_message(&error.to_string(), data.len()),
    };
    assert!(tokenizer.max_tokens() <= config.max_positions);
    let single = |text: &str| Text::Single(text.to_owned());
    let check = |text: &Text, too_long| {
        // The tokenizer may refuse it.
        let _ = check_encoding(&tokenizer, text, too_long, config.vocab_size, 2);
    };
    for text in [
        "b-play'aing,[MASK] \tAB\u{c9}.",
        "\u{65e5}na\u{ef}\u{301} a\u{200b}\u{0}\u{1f600}\u{200d}",
    ] {
        check(&single(text), TooLong::Truncate);
    }
    let text = String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned();
    check(&single(&text), TooLong::Truncate);
    check(&single(&text), TooLong::Refuse);
    check(&Text::Pair("a b".to_owned(), text), TooLong::Truncate);
}

/// The first byte selects what follows: `s` a `model.safetensors`; `h` two bytes with the size of the data, and
/// the header of a `model.safetensors`, whose length is prepended; any other an index and two shards,
/// separated.
pub fn checkpoint_weights(data: &[u8]) {
    let [kind, data @ ..] = data else {
        return;
    };
    let with_length;
    let files = match kind {
        b's' => memory(&[("model.safetensors", data)]),
        b'h' => {
            let [low, high, header @ ..] = data else {
                return;
            };
            let behind = usize::from(u16::from_le_bytes([*low, *high]));
            with_length = safetensors(header, behind);
            memory(&[("model.safetensors", &with_length)])
        }
        _ => {
            let (index, shards) = split(data);
            let (first, second) = split(shards);
            memory(&[
                ("model.safetensors.index.json", index),
                ("1.safetensors", first),
                ("2.safetensors", second),
            ])
        }
    };
    let config = tiny_config();
    let weights = match Weights::read(&files, &config) {
        Ok(weights) => weights,
        Err(error) => return check_message(&error.to_string(), 2 * data.len() + u16::MAX as usize),
    };
    assert!(weights.label_count() > 0);
    let size = weights.size();
    assert!(
        size.parameters <= size.bytes,
        "no type takes less than a byte"
    );
    for (key, shape) in config.tensors(weights.label_count()) {
        let values = weights.f32(key).expect("it has been checked");
        assert_eq!(values.len(), shape.iter().product::<usize>());
    }
    assert!(!weights.dtype().is_empty());
}

/// A file of the safetensors format: the header's length, the header, zeros.
fn safetensors(header: &[u8], behind: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + behind, 0);
    file
}

/// The tensors of a BERT classifier of [`tiny_config`]'s shape and two labels.
fn tiny_tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    for (name, rows) in [("word", 32), ("position", 8), ("token_type", 2)] {
        tensors.push((
            format!("embeddings.{name}_embeddings.weight"),
            vec![rows, 2],
        ));
    }
    let layer = "encoder.layer.0";
    for name in [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ] {
        tensors.push((format!("{layer}.{name}.weight"), vec![2, 2]));
        tensors.push((format!("{layer}.{name}.bias"), vec![2]));
    }
    for name in [
        "embeddings.LayerNorm".to_owned(),
        format!("{layer}.attention.output.LayerNorm"),
        format!("{layer}.output.LayerNorm"),
    ] {
        tensors.push((format!("{name}.weight"), vec![2]));
        tensors.push((format!("{name}.bias"), vec![2]));
    }
    for name in ["pooler.dense", "classifier"] {
        tensors.push((format!("{name}.weight"), vec![2, 2]));
        tensors.push((format!("{name}.bias"), vec![2]));
    }
    tensors
}

/// `model.safetensors` with these tensors, all zero.
fn tiny_weights() -> Vec<u8> {
    let (mut header, mut offset) = (Vec::new(), 0);
    for (name, shape) in tiny_tensors() {
        let end = offset + 4 * shape.iter().product::<usize>();
        header.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{offset},{end}]}}"#
        ));
        offset = end;
    }
    safetensors(format!("{{{}}}", header.join(",")).as_bytes(), offset)
}
