//! Correctness: logits of ragged batches and labels of complete data sets, against the CPU.

use std::num::NonZeroUsize;

use intentd::engine::{Cpu, CpuOptions, Cuda, CudaOptions, Engine, Logits, RaggedBatch, Reference};
use intentd::model::Checkpoint;
use intentd_kernels::{Device, Dtype};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::input::{
    CLINC, LARGEST, SMALL, SNIPS, batches, checkpoint, engine, random, texts, warm,
};

/// Types with the largest error of their logits, relative to the largest logit of the CPU.
const TYPES: [(Dtype, f32); 3] = [(Dtype::F32, 1e-3), (Dtype::F16, 1e-2), (Dtype::Bf16, 8e-2)];
/// Share of texts that must keep their label in f16.
const SAME_LABELS_MIN: f64 = 0.999;
const SEQUENCES: [usize; 12] = [1, 2, 3, 5, 8, 16, 33, 64, 100, 128, 256, 512];

pub(crate) fn run(device: &Device, quick: bool) -> bool {
    let mut right = true;
    let names: &[&str] = if quick {
        &["embedded"]
    } else {
        &["embedded", "base", "cased", "multilabel", "bf16"]
    };
    println!("checkpoint | type | batches | largest difference / largest logit | bound");
    for name in names {
        let checkpoint = checkpoint(name);
        let mut cpu = Cpu::load(&checkpoint, CpuOptions::f32(cores())).unwrap();
        let batches = ragged(&checkpoint, quick);
        let expected: Vec<Logits> = batches.iter().map(|b| cpu.forward(b).unwrap()).collect();
        right &= cpu_is_the_reference(&checkpoint, &batches[0], &expected[0]);
        for (dtype, bound) in TYPES {
            if dtype == Dtype::Bf16 && device.facts().compute_capability < (8, 0) {
                continue;
            }
            let error = largest_error(device, &checkpoint, dtype, quick, (&batches, &expected));
            let fine = error <= bound;
            println!(
                "{name} | {} | {} | {error:.2e} | {bound:.0e}{}",
                dtype.name(),
                batches.len(),
                if fine { "" } else { " WRONG" }
            );
            right &= fine;
        }
    }
    right & same_labels(device, quick)
}

/// Runs both paths through a layer and all kinds of attention once each.
pub(crate) fn sanitize(device: &Device) -> bool {
    let checkpoint = checkpoint("embedded");
    let mut cpu = Cpu::load(&checkpoint, CpuOptions::f32(cores())).unwrap();
    let options = CudaOptions {
        dtype: Dtype::F16,
        largest: SMALL,
        graphs_max: 0,
    };
    let mut gpu = Cuda::load(&checkpoint, device.clone(), options).unwrap();
    let mut right = true;
    for lengths in [&[12][..], &[3, 9, 20], &[30; 16], &[128, 1, 77]] {
        let batch = random(&checkpoint, lengths, 5);
        let (expected, found) = (cpu.forward(&batch).unwrap(), gpu.forward(&batch).unwrap());
        let error = relative_error(&found, &expected, largest([&expected]));
        println!("{lengths:?}: {error:.2e}");
        right &= error <= 1e-2;
    }
    right
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap()
}

/// Batches of few to many sequences, with lengths of a query and with any length.
fn ragged(checkpoint: &Checkpoint, quick: bool) -> Vec<RaggedBatch> {
    let mut random_length = ChaCha8Rng::seed_from_u64(7);
    let largest = if quick { SMALL } else { LARGEST };
    let longest = checkpoint.config.max_positions.min(largest.tokens / 2);
    let mut batches = Vec::new();
    for sequences in SEQUENCES.into_iter().filter(|n| *n <= largest.sequences) {
        for max in [24, longest] {
            let mut left = largest.tokens;
            let mut lengths = Vec::new();
            for _ in 0..sequences {
                let length = random_length.random_range(1..=max).min(left);
                left -= length;
                lengths.extend((length > 0).then_some(length));
            }
            // 16,000 tokens of BERT-base take a minute on the CPU, so only two batches have as many.
            if left > largest.tokens / 8 || max == 24 || sequences == 512 {
                batches.push(random(checkpoint, &lengths, sequences as u64));
            }
        }
    }
    batches.push(random(checkpoint, &[longest, 1, longest], 99));
    batches
}

/// Compares the CPU engine, which replaces the slower reference here, with the reference once.
fn cpu_is_the_reference(checkpoint: &Checkpoint, batch: &RaggedBatch, cpu: &Logits) -> bool {
    let mut reference = Reference::load(checkpoint).unwrap();
    let expected = reference.forward(batch).unwrap();
    relative_error(cpu, &expected, largest([&expected])) <= 1e-4
}

/// The largest error over all batches, each run launch by launch and from its graph.
fn largest_error(
    device: &Device,
    checkpoint: &Checkpoint,
    dtype: Dtype,
    small: bool,
    (batches, expected): (&[RaggedBatch], &[Logits]),
) -> f32 {
    let mut engine = engine(checkpoint, device, dtype, small);
    let scale = largest(expected);
    let mut worst = 0.0_f32;
    for (batch, expected) in batches.iter().zip(expected) {
        let launched = engine.forward(batch).unwrap();
        warm(&mut engine, batch);
        let replayed = engine.forward(batch).unwrap();
        for found in [launched, replayed] {
            worst = worst.max(relative_error(&found, expected, scale));
        }
    }
    worst
}

fn largest<'a>(logits: impl IntoIterator<Item = &'a Logits>) -> f32 {
    let values = logits.into_iter().flat_map(Logits::rows).flatten();
    values.fold(0.0, |max, value| max.max(value.abs()))
}

/// The largest error relative to `scale`; infinite if a value is not a number.
fn relative_error(found: &Logits, expected: &Logits, scale: f32) -> f32 {
    let (found, expected) = (found.rows().flatten(), expected.rows().flatten());
    found.zip(expected).fold(0.0, |worst, (a, b)| {
        let error = (a - b).abs() / scale;
        if error.is_finite() {
            worst.max(error)
        } else {
            f32::INFINITY
        }
    })
}

/// Compares the embedded model's labels in f16 with those of the CPU in f32.
fn same_labels(device: &Device, quick: bool) -> bool {
    let checkpoint = checkpoint("embedded");
    let mut texts = texts(&[SNIPS, CLINC]);
    if quick {
        texts.truncate(100);
    }
    let mut cpu = Cpu::load(&checkpoint, CpuOptions::f32(cores())).unwrap();
    let mut gpu = engine(&checkpoint, device, Dtype::F16, quick);
    let size = 50;
    let (mut same, mut total) = (0_u32, 0_u32);
    for batch in batches(&checkpoint, &texts, size, texts.len().div_ceil(size)) {
        let (a, b) = (cpu.forward(&batch).unwrap(), gpu.forward(&batch).unwrap());
        for (a, b) in a.rows().zip(b.rows()) {
            let best = |row| checkpoint.labels.best(row).label;
            same += u32::from(best(a) == best(b));
            total += 1;
        }
    }
    let fine = f64::from(same) >= SAME_LABELS_MIN * f64::from(total);
    println!("labels of the embedded model, f16 as on the CPU in f32: {same} of {total}");
    fine
}
