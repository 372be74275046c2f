//! One engine, driven by another program that compares engines on the same batches in alternation:
//! `cargo bench --bench forward -- --model DIR --texts FILE`.
//!
//! `FILE` has one text a line; all are tokenized at the start. The program then prints a line of JSON that
//! describes the engine: `{"engine": "cpu f32, AVX2, 2 threads", "threads": 2}`. For each line on standard
//! input, `{"batches": [[0, 1], [2, 3]]}` (indices of texts), it runs every batch once, in order, and prints
//! one line: `{"seconds": [...], "labels": [[...], [...]]}`, with the time of each forward pass without
//! tokenizing and the best class of each text. benches/peers/forward.py is such a driver.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::io::{BufRead, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use intentd::engine::{
    self, DeviceChoice, Dtype, Engine, EngineKind, EngineOptions, IsaLimit, RaggedBatch,
};
use intentd::model::{Checkpoint, Encoded, Text, TooLong};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Flags {
    /// Directory of the checkpoint. The default is the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// File with one text a line.
    #[arg(long)]
    texts: PathBuf,
    #[arg(long, value_enum, default_value = "native")]
    engine: EngineKind,
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// The default is all cores.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    #[arg(long, default_value = "best")]
    cpu_isa: IsaLimit,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let flags = Flags::parse();
    let checkpoint = Checkpoint::open_or_embedded(flags.model.as_deref()).unwrap();
    let texts = std::fs::read_to_string(&flags.texts).unwrap();
    let encode = |text: &str| {
        let text = Text::Single(text.to_owned());
        checkpoint
            .tokenizer
            .encode(&text, TooLong::Truncate)
            .unwrap()
    };
    let texts: Vec<Encoded> = texts.lines().map(encode).collect();
    let available = || std::thread::available_parallelism().unwrap();
    let threads = flags.threads.unwrap_or_else(available);
    let options = EngineOptions {
        device: flags.device,
        dtype: flags.dtype,
        cpu_isa: flags.cpu_isa,
        ..EngineOptions::cpu(flags.engine, threads)
    };
    let mut engine = engine::load(&checkpoint, options).unwrap().engine;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}",
        json!({"engine": engine.description(), "threads": threads})
    )
    .unwrap();
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let (mut seconds, mut labels) = (Vec::new(), Vec::new());
        for batch in asked["batches"].as_array().unwrap() {
            let (time, best) = run(&mut *engine, &texts, batch);
            seconds.push(time);
            labels.push(best);
        }
        writeln!(out, "{}", json!({"seconds": seconds, "labels": labels})).unwrap();
    }
}

/// Runs one batch. Returns its time in seconds, and the class of the largest logit of each text.
fn run(engine: &mut dyn Engine, texts: &[Encoded], batch: &Value) -> (f64, Vec<usize>) {
    let mut ragged = RaggedBatch::new();
    for index in batch.as_array().unwrap() {
        let text = &texts[usize::try_from(index.as_u64().unwrap()).unwrap()];
        ragged.push(&text.ids, &text.type_ids);
    }
    let start = Instant::now();
    let logits = engine.forward(&ragged).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let best = |row: &[f32]| {
        let classes = row.iter().enumerate();
        classes.max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0
    };
    (seconds, logits.rows().map(best).collect())
}
