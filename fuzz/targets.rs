//! What the fuzz targets run, one function a decoder.
//!
//! Takes the bytes of one case, gives nothing, panics where the server's promise is broken: input
//! is decoded or refused, quickly, in bounded memory, and what is decoded keeps the invariants
//! that later stages rely on. `fuzz/fuzz_targets` calls these under libFuzzer, `tests/it/fuzz.rs`
//! with the committed corpora.

use std::sync::{Arc, OnceLock};

use axum::http::{HeaderMap, HeaderValue, header};
use intentd::api;
use intentd::error::Refusal;
use intentd::model::{
    Activation, Checkpoint, EncodeError, Encoded, Files, Labels, ModelConfig, Text, Tokenizer,
    TooLong, Weights,
};
use intentd::serving::Request;

/// Separates the parts of a case, where it has several.
const SEPARATOR: &[u8] = b"\n====\n";

/// A request: the first line is the content type, or `?` for a query string, or `-` for none; the
/// rest is the body.
pub fn request_body(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (kind, body) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let decoded = if kind == b"?" {
        // The HTTP library lets nothing else through.
        let Ok(query) = std::str::from_utf8(body) else {
            return;
        };
        api::decode_query(query)
    } else {
        let mut headers = HeaderMap::new();
        if kind != b"-" {
            let Ok(value) = HeaderValue::from_bytes(kind) else {
                return;
            };
            headers.insert(header::CONTENT_TYPE, value);
        }
        api::decode_body(&headers, body)
    };
    match decoded {
        Ok(Request { texts, .. }) => {
            // JSON escapes, `+` and percent signs only ever make a text shorter.
            let bytes: usize = texts.iter().map(Text::bytes).sum();
            assert!(bytes <= body.len(), "texts grew while they were decoded");
        }
        Err(refusal) => {
            let status = refusal.status();
            assert!((400..500).contains(&status), "status {status}");
            assert!(!matches!(refusal, Refusal::Encode(_)));
            // The type that was sent is repeated; the body never is.
            let longest = 300 + 4 * kind.len() * "\\u{fffd}".len();
            assert!(
                refusal.to_string().len() <= longest,
                "a refusal that grows with the body"
            );
        }
    }
}

/// The embedded model's tokenizer at its own length, and at one that short texts reach.
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
        let tokenizer = include_bytes!("../models/intent-snips/tokenizer.json");
        let short = Tokenizer::read(&memory(&[("tokenizer.json", tokenizer)]), &config);
        Tokenizers {
            vocab_size: config.vocab_size,
            long,
            short: short.expect("a shorter model takes the same tokenizer"),
        }
    })
}

/// A text or a pair: bit 0 of the first byte refuses what is too long, bit 1 makes a pair of the
/// halves before and after the separator, bit 2 uses the short tokenizer.
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
        // A shorter model sees the beginning of what a longer one sees.
        let short = encoded.expect("a text that may be cut is encoded");
        let long = tokenizers.long.encode_whole(&text, TooLong::Truncate);
        let long = long.expect("a text that may be cut is encoded").ids;
        assert_eq!(short.truncated, long.len() > SHORT_TOKENS);
        let end = short.ids.len() - 1;
        assert_eq!(short.ids[..end], long[..end]);
        assert_eq!(short.ids.last(), long.last(), "[SEP]");
    }
}

/// Encodes `text` with and without remembered words, and checks what the engine relies on.
fn check_encoding(
    tokenizer: &Tokenizer,
    text: &Text,
    too_long: TooLong,
    vocab_size: usize,
    type_vocab_size: u32,
) -> Result<Encoded, EncodeError> {
    let encoded = tokenizer.encode(text, too_long);
    // Words are remembered for single texts alone.
    if matches!(text, Text::Single(_)) {
        let whole = tokenizer.encode_whole(text, too_long);
        assert_eq!(encoded, whole, "remembered words change the answer");
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

/// The shape that the tiny checkpoints of these targets have.
fn tiny_config() -> ModelConfig {
    ModelConfig {
        vocab_size: 32,
        hidden_size: 2,
        layers: 1,
        heads: 1,
        intermediate_size: 2,
        max_positions: 8,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        activation: Activation::Gelu,
        scoring: None,
        id2label: None,
    }
}

/// `config.json` beside tiny weights and a tiny vocabulary that stay as they are.
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
    // Whatever the shape: names for the rows that a classifier of eight labels would have.
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

/// An error names what it found, and so may be as long as the file, but not much longer.
fn check_message(message: &str, bytes: usize) {
    // A character of one byte is written as up to six, and again escaped within its key.
    let longest = 1000 + 16 * bytes;
    assert!(message.len() <= longest, "{} bytes", message.len());
}

const TINY_VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##a\n##b\nplay\n##ing\n'\n";

/// `j` and `tokenizer.json`, or another letter and `vocab.txt`; behind a separator each,
/// `tokenizer_config.json` and a text, of which 64 bytes are encoded besides those below.
pub fn checkpoint_tokenizer(data: &[u8]) {
    let [kind, data @ ..] = data else {
        return;
    };
    let (content, others) = split(data);
    let (settings, text) = split(others);
    let name = if *kind == b'j' {
        "tokenizer.json"
    } else {
        "vocab.txt"
    };
    let mut files = vec![(name, content)];
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
        // Whether it is refused is the tokenizer's business.
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

/// The first byte says what follows: `s` a `model.safetensors`; `h` two bytes, how much data there
/// is, and the header of a `model.safetensors`, whose length is put before it; any other an index
/// and two shards, separated.
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
    let (parameters, bytes) = weights.size(&config);
    assert!(parameters <= bytes, "no type takes less than a byte");
    for (name, shape) in tiny_tensors() {
        if name.starts_with("classifier.") {
            continue;
        }
        let values = weights.f32(&name, &shape).expect("it has been checked");
        assert_eq!(values.len(), shape.iter().product::<usize>());
    }
    let rows = weights.label_count();
    let values = weights.f32("classifier.weight", &[rows, config.hidden_size]);
    assert!(values.is_ok());
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

/// `model.safetensors` of those, all zero.
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

fn memory(files: &[(&str, &[u8])]) -> Files {
    let owned = |(name, content): &(&str, &[u8])| ((*name).to_owned(), Arc::from(*content));
    Files::Memory {
        origin: "fuzz".to_owned(),
        files: files.iter().map(owned).collect(),
    }
}

/// What stands before and behind the first separator.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let separator = data.windows(SEPARATOR.len()).position(|w| w == SEPARATOR);
    match separator {
        Some(place) => (&data[..place], &data[place + SEPARATOR.len()..]),
        None => (data, &[]),
    }
}
