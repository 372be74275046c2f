//! The fuzz targets, one function for each decoder.
//!
//! A function takes the bytes of one case and panics when a guarantee of the server is broken: input is
//! decoded or refused, quickly and in bounded memory, and decoded input has the invariants that later stages
//! rely on. `fuzz/fuzz_targets` calls the functions under libFuzzer, `tests/it/fuzz.rs` with the committed
//! corpora.

mod bench;
mod checkpoint;
mod events;
mod inference;
mod request;
mod scaler;
mod tokenizer;

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use intentd::error::Refusal;
use intentd::model::{Files, Text};

pub use self::bench::{bench_input, bench_target};
pub use self::checkpoint::{checkpoint_config, checkpoint_tokenizer, checkpoint_weights};
pub use self::events::{event_record, event_request};
pub use self::inference::{inference_grpc, inference_rest};
pub use self::request::request_body;
pub use self::scaler::{scaler_answer, scaler_replicas, scaler_trigger};
pub use self::tokenizer::tokenizer_text;

/// Separates the parts of a case that has several.
const SEPARATOR: &[u8] = b"\n====\n";

/// The parts before and after the first separator.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let separator = data.windows(SEPARATOR.len()).position(|w| w == SEPARATOR);
    match separator {
        Some(place) => (&data[..place], &data[place + SEPARATOR.len()..]),
        None => (data, &[]),
    }
}

fn memory(files: &[(&str, &[u8])]) -> Files {
    let owned = |(name, content): &(&str, &[u8])| ((*name).to_owned(), Arc::from(*content));
    Files::Memory {
        origin: "fuzz".to_owned(),
        files: files.iter().map(owned).collect(),
    }
}

/// Headers from lines `name: value`. Invalid headers are left out, since the HTTP library refuses them.
fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(header) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// Name and value of one line.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let value = &line[colon + 1..];
    Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
}

/// A refusal blames the client, and its length does not depend on the input's.
fn check_refusal(refusal: &Refusal) {
    let status = refusal.status();
    assert!((400..500).contains(&status), "status {status}");
    assert!(!matches!(refusal, Refusal::Encode(_)));
    check_length(&refusal.to_string());
}

/// A message does not grow with the input: it repeats at most a hundred characters, each escaped as up to
/// ten.
fn check_length(message: &str) {
    assert!(message.len() <= 1300, "{} bytes", message.len());
}

/// Texts are not longer than their input.
fn check_bytes(texts: &[Text], most: usize) {
    let bytes: usize = texts.iter().map(Text::bytes).sum();
    assert!(bytes <= most, "texts grew while they were decoded");
}
