//! The share of the vector units' peak rate that a forward pass reaches: `cargo bench --bench peak`, with
//! `-- --model DIR --texts FILE` for other models and texts than the embedded ones.
//!
//! The peak is the rate of multiply-adds on registers alone, with the widest instructions, on as many threads
//! as the process may use. In each round it is measured before and after f32 forward passes of 32 texts. Of
//! the forward passes, the multiply-adds of linear layers and attention count, without padding and without the
//! part of the last layer that is not computed.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use intentd::bench::read_texts;
use intentd::engine::{Cpu, CpuOptions, Engine, RaggedBatch};
use intentd::model::{Checkpoint, Text, TooLong};
use pulp::{Arch, Simd, WithSimd};

#[derive(Debug, Parser)]
struct Flags {
    /// Directory of the checkpoint. The default is the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// File with one text a line.
    #[arg(long)]
    texts: Option<PathBuf>,
    #[arg(long, default_value = "7")]
    rounds: usize,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Texts in a batch.
const BATCH: usize = 32;
/// Duration of a measurement.
const TURN: Duration = Duration::from_millis(700);
/// Independent sums: enough to hide the latency of any unit, and few enough for 16 registers.
const SUMS: usize = 12;
const STEPS: usize = 100_000;

struct MultiplyAdds;

impl WithSimd for MultiplyAdds {
    type Output = u64;

    /// Returns the number of floating-point operations.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        let (a, b) = (
            simd.splat_f32s(black_box(0.999)),
            simd.splat_f32s(black_box(1e-3)),
        );
        let mut sums = [simd.splat_f32s(1.0); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, a, b);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        (2 * STEPS * SUMS * S::F32_LANES) as u64
    }
}

fn main() {
    let flags = Flags::parse();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let checkpoint = Checkpoint::open_or_embedded(flags.model.as_deref()).unwrap();
    let mut engine = Cpu::load(&checkpoint, CpuOptions::f32(threads)).unwrap();
    let batches = batches(&checkpoint, &read_texts(flags.texts.as_deref()).unwrap());
    let (mut peaks, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..flags.rounds {
        let before = peak(threads);
        let achieved = forward(&mut engine, &checkpoint, &batches);
        let peak = f64::midpoint(before, peak(threads));
        peaks.push(peak);
        shares.push(achieved / peak);
    }
    peaks.sort_by(f64::total_cmp);
    shares.sort_by(f64::total_cmp);
    let (middle, last) = (flags.rounds / 2, flags.rounds - 1);
    println!("{}, {}", checkpoint.origin, engine.description());
    println!(
        "peak in GFLOP/s, median of {}  {:.1}",
        flags.rounds, peaks[middle]
    );
    println!(
        "share of it at batch {BATCH}      {:.1} % ({:.1} to {:.1})",
        100.0 * shares[middle],
        100.0 * shares[0],
        100.0 * shares[last]
    );
}

/// GFLOP/s of all threads together.
fn peak(threads: NonZeroUsize) -> f64 {
    let work = || {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < TURN {
            done += Arch::new().dispatch(MultiplyAdds);
        }
        done as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

/// The texts in consecutive batches.
fn batches(checkpoint: &Checkpoint, texts: &[String]) -> Vec<RaggedBatch> {
    let encode = |batch: &mut RaggedBatch, text: &String| {
        let text = Text::Single(text.clone());
        let encoded = checkpoint
            .tokenizer
            .encode(&text, TooLong::Truncate)
            .unwrap();
        batch.push(&encoded.ids, &encoded.type_ids);
    };
    let whole = texts.chunks_exact(BATCH).map(|texts| {
        let mut batch = RaggedBatch::new();
        texts.iter().for_each(|text| encode(&mut batch, text));
        batch
    });
    let batches: Vec<RaggedBatch> = whole.collect();
    assert!(!batches.is_empty(), "at least {BATCH} texts are needed");
    batches
}

/// GFLOP/s of forward passes.
fn forward(engine: &mut Cpu, checkpoint: &Checkpoint, batches: &[RaggedBatch]) -> f64 {
    let (start, mut done) = (Instant::now(), 0.0);
    for batch in batches.iter().cycle() {
        engine.forward(batch).unwrap();
        done += 2.0 * multiply_adds(checkpoint, batch);
        if start.elapsed() >= TURN {
            break;
        }
    }
    done / start.elapsed().as_secs_f64() / 1e9
}

/// Multiply-adds of a forward pass without padding, whose last layer computes only keys and values for all
/// tokens.
fn multiply_adds(checkpoint: &Checkpoint, batch: &RaggedBatch) -> f64 {
    let config = &checkpoint.config;
    let (h, ff) = (config.hidden_size as f64, config.intermediate_size as f64);
    let (layers, labels) = (config.layers as f64, checkpoint.labels.len() as f64);
    let (tokens, sequences) = (batch.tokens() as f64, batch.sequences() as f64);
    let lengths = (0..batch.sequences()).map(|index| batch.range(index).len() as f64);
    // Scores and weighted sums: two products of [tokens, hidden] by each sequence.
    let pairs: f64 = lengths.map(|length| length * length).sum();
    let rows = |rows: f64| rows * (2.0 * h * h + 2.0 * h * ff);
    let keys_values = tokens * 2.0 * h * h;
    layers * keys_values
        + (layers - 1.0) * (rows(tokens) + 2.0 * h * pairs)
        + rows(sequences)
        + 2.0 * h * tokens
        + sequences * (h * h + h * labels)
}
