//! Batches on demand, so that another program can interleave these times with those of other engines.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use intentd::engine::{Engine, RaggedBatch};
use intentd::model::Checkpoint;
use intentd_kernels::{Device, Dtype};

use crate::input::{engine, queries, warm};
use crate::support::checkpoint::{catalog, write};

/// Batch sizes in texts.
const SIZES: [usize; 4] = [1, 8, 32, 256];
/// Batches of each size. Each line of the driver runs all of them once.
const BATCHES: usize = 20;

/// Writes the checkpoint and `batches.json` (`{size: [[ids, …], …]}`) into `directory` and prints `ready`.
/// Then it answers each line with the seconds of a batch, and the seconds of its copies and kernels by the
/// device's clock.
pub(crate) fn run(device: &Device, directory: &Path, small: bool) -> bool {
    let name = if small { "cased" } else { "base" };
    write(&catalog::spec(name).unwrap(), directory).unwrap();
    let checkpoint = Checkpoint::open(directory).unwrap();
    let mut engine = engine(&checkpoint, device, Dtype::F16, small);
    let sizes = if small { &SIZES[..1] } else { &SIZES[..] };
    let sets: Vec<(usize, Vec<RaggedBatch>)> = sizes
        .iter()
        .map(|size| (*size, queries(&checkpoint, *size, BATCHES)))
        .collect();
    let ids = |batch: &RaggedBatch| -> Vec<Vec<u32>> {
        batch
            .ranges()
            .map(|range| batch.ids()[range].to_vec())
            .collect()
    };
    let mut logits = serde_json::Map::new();
    let mut written = serde_json::Map::new();
    for (size, batches) in &sets {
        let all: Vec<_> = batches.iter().map(ids).collect();
        written.insert(size.to_string(), serde_json::json!(all));
        batches.iter().for_each(|batch| warm(&mut engine, batch));
        let first = engine.forward(&batches[0]).unwrap();
        let rows: Vec<_> = first.rows().map(<[f32]>::to_vec).collect();
        logits.insert(size.to_string(), serde_json::json!(rows));
    }
    let file = |name: &str, value| {
        let text = serde_json::to_string(&serde_json::Value::Object(value)).unwrap();
        std::fs::write(directory.join(name), text).unwrap();
    };
    file("batches.json", written);
    // For the driver to check that both engines compute the same.
    file("logits.json", logits);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let Some((_, batches)) = sets
            .iter()
            .find(|(size, _)| size.to_string() == line.trim())
        else {
            eprintln!("gpu drive: no batches of {line:?}");
            return false;
        };
        let before = engine.device_time().unwrap();
        let start = Instant::now();
        for batch in batches {
            engine.forward(batch).unwrap();
        }
        let wall = start.elapsed().as_secs_f64() / batches.len() as f64;
        let device = (engine.device_time().unwrap() - before).as_secs_f64() / batches.len() as f64;
        println!("{wall} {device}");
        std::io::stdout().flush().unwrap();
    }
    true
}
