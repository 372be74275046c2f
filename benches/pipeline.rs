//! The times of tokenizer, engine and HTTP path: `cargo bench --bench pipeline`.
//!
//! The texts are the SNIPS test set if `../shared/data` has it, else the probe texts of the embedded model;
//! the choice is printed. The engine is measured on the embedded model and on a BERT-base shape with random
//! weights, in batches of 1, 8 and 32 texts. The times are absolute: they show where time is spent on this
//! machine, and cannot be compared between servers.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use intentd::engine::{self, EngineKind, EngineOptions, RaggedBatch};
use intentd::model::{Checkpoint, Text, TooLong};

#[path = "../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod support;

use support::checkpoint::{catalog, write};
use support::http::{Connection, keep_alive};
use support::server::TestServer;

/// Texts of the length that users send.
fn texts() -> Vec<String> {
    let files = [
        "../shared/data/snips/test.jsonl",
        "models/intent-snips/probes.jsonl",
    ];
    let file = files
        .into_iter()
        .find(|file| Path::new(file).exists())
        .unwrap();
    println!("texts: {file}");
    let line = |line: &str| -> String {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["text"].as_str().unwrap().to_owned()
    };
    std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(line)
        .collect()
}

fn tokenizer(c: &mut Criterion) {
    let texts = texts();
    let checkpoint = Checkpoint::embedded().unwrap();
    let mut next = texts.iter().cycle();
    let mut group = c.benchmark_group("tokenizer");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one text", |b| {
        b.iter_batched(
            || Text::Single(next.next().unwrap().clone()),
            |text| {
                checkpoint
                    .tokenizer
                    .encode(&text, TooLong::Truncate)
                    .unwrap()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn batches(checkpoint: &Checkpoint, texts: &[String], size: usize) -> Vec<RaggedBatch> {
    texts
        .chunks_exact(size)
        .map(|texts| {
            let mut batch = RaggedBatch::new();
            for text in texts {
                let text = Text::Single(text.clone());
                let encoded = checkpoint
                    .tokenizer
                    .encode(&text, TooLong::Truncate)
                    .unwrap();
                batch.push(&encoded.ids, &encoded.type_ids);
            }
            batch
        })
        .collect()
}

fn engines(c: &mut Criterion) {
    let texts = texts();
    let base = tempfile::tempdir().unwrap();
    write(&catalog::spec("base").unwrap(), base.path()).unwrap();
    let checkpoints = [
        ("embedded", Checkpoint::embedded().unwrap()),
        ("BERT-base", Checkpoint::open(base.path()).unwrap()),
    ];
    let threads = std::thread::available_parallelism().unwrap();
    for (name, checkpoint) in checkpoints {
        for (kind, kind_name) in [
            (EngineKind::Native, "native"),
            (EngineKind::Candle, "candle"),
            (EngineKind::Reference, "reference"),
        ] {
            let mut engine = engine::load(&checkpoint, EngineOptions::cpu(kind, threads))
                .unwrap()
                .engine;
            let mut group = c.benchmark_group(format!("engine/{name}/{kind_name}"));
            group
                .sample_size(10)
                .measurement_time(Duration::from_secs(3));
            for size in [1, 8, 32] {
                let batches = batches(&checkpoint, &texts, size);
                let mut next = batches.iter().cycle();
                group.throughput(Throughput::Elements(size as u64));
                group.bench_function(BenchmarkId::from_parameter(size), |b| {
                    b.iter(|| black_box(engine.forward(next.next().unwrap()).unwrap()));
                });
            }
            group.finish();
        }
    }
}

fn http(c: &mut Criterion) {
    let texts = texts();
    let encoded = |text: &String| form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let paths: Vec<String> = texts.iter().map(encoded).collect();
    let request = |text: &String| keep_alive(&format!("/predict?query={text}"), "*/*");
    let requests: Vec<Vec<u8>> = paths.iter().map(request).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(TestServer::start(&[]));
    let mut next = requests.iter().cycle();
    let mut group = c.benchmark_group("http");
    for clients in [1, 32] {
        let open = || Connection::open(server.address);
        let mut connections = runtime.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..clients {
                connections.push(open().await);
            }
            connections
        });
        group.throughput(Throughput::Elements(clients as u64));
        group.bench_function(BenchmarkId::new("GET /predict, clients", clients), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let sent = connections.iter_mut().map(|c| c.send(next.next().unwrap()));
                    for answer in futures_util::future::join_all(sent).await {
                        assert_eq!(answer.status, 200);
                    }
                });
            });
        });
    }
    group.finish();
    runtime.block_on(server.stop());
}

criterion_group!(benches, tokenizer, engines, http);
criterion_main!(benches);
