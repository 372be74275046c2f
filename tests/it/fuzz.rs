//! The fuzz targets on their committed corpora: what once was reached stays decoded or refused.

use std::path::Path;

#[path = "../../fuzz/targets/mod.rs"]
#[expect(
    unreachable_pub,
    reason = "the fuzz package makes a library of this file"
)]
mod targets;

/// Runs `target` on each file of its corpus, and says which file it was that failed.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{} has to be there: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no case", folder.display());
    for path in paths {
        let case = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| target(&case)).is_err() {
            panic!("the target {name} panicked on {}", path.display());
        }
    }
}

#[test]
fn request_body_corpus() {
    replay("request_body", targets::request_body);
}

#[test]
fn tokenizer_text_corpus() {
    replay("tokenizer_text", targets::tokenizer_text);
}

#[test]
fn checkpoint_config_corpus() {
    replay("checkpoint_config", targets::checkpoint_config);
}

#[test]
fn checkpoint_tokenizer_corpus() {
    replay("checkpoint_tokenizer", targets::checkpoint_tokenizer);
}

#[test]
fn checkpoint_weights_corpus() {
    replay("checkpoint_weights", targets::checkpoint_weights);
}

#[test]
fn event_request_corpus() {
    replay("event_request", targets::event_request);
}

#[test]
fn event_record_corpus() {
    replay("event_record", targets::event_record);
}

#[test]
fn inference_rest_corpus() {
    replay("inference_rest", targets::inference_rest);
}

#[test]
fn inference_grpc_corpus() {
    replay("inference_grpc", targets::inference_grpc);
}

#[test]
fn scaler_answer_corpus() {
    replay("scaler_answer", targets::scaler_answer);
}

#[test]
fn scaler_trigger_corpus() {
    replay("scaler_trigger", targets::scaler_trigger);
}

#[test]
fn scaler_replicas_corpus() {
    replay("scaler_replicas", targets::scaler_replicas);
}

#[test]
fn bench_target_corpus() {
    replay("bench_target", targets::bench_target);
}

#[test]
fn bench_input_corpus() {
    replay("bench_input", targets::bench_input);
}
