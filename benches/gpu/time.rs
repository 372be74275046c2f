//! Device times of a forward pass, and the share of the device's peak rates that they reach.
//!
//! The lower bounds are the time to read the weights once, and the time of the products' arithmetic at the
//! rate that one large product reaches on this device in the same run.

use std::time::{Duration, Instant};

use intentd::engine::{Cuda, Engine, RaggedBatch};
use intentd_kernels::{Device, Dtype, Product, ProductShape};

use crate::input::{LARGEST, checkpoint, engine, queries, random, warm};

/// Operations of all layers of BERT-base for a token: queries, keys, values and output; feed-forward.
const FLOP_PER_TOKEN: f64 = 2.0 * 12.0 * (4.0 * 768.0 * 768.0 + 2.0 * 768.0 * 3072.0);
/// Operations of attention in all layers, for each pair of tokens of a sequence.
const FLOP_PER_PAIR: f64 = 12.0 * 4.0 * 768.0;

pub(crate) fn run(device: &Device, small: bool) -> bool {
    let name = if small { "embedded" } else { "base" };
    let checkpoint = checkpoint(name);
    let start = Instant::now();
    let mut engine = engine(&checkpoint, device, Dtype::F16, small);
    println!(
        "load {name}: {:.3?}, {:?}",
        start.elapsed(),
        engine.startup_phases()
    );
    let runs = if small { 3 } else { 300 };
    println!(
        "kernels: from one replay to the next; batch: with its copies in and out, another behind it;"
    );
    println!("answer: from the batch to its logits on the host, nothing else under way");
    for tokens in [8, 12, 16, 24, 32, 33, 48, 64] {
        let query = random(&checkpoint, &[tokens], 1);
        let times = Times::of(&mut engine, &query, runs);
        println!("one query of {tokens} tokens: {times}");
    }
    overlap(&mut engine, &random(&checkpoint, &[12], 1), runs);
    if small {
        return true;
    }
    let rate = product_rate(device, 8192);
    println!(
        "dense f16 product 8192 x 8192 x 8192: {:.0} TFLOP/s",
        rate / 1e12
    );
    let uniform = random(&checkpoint, &[128; 128], 2);
    let uniform_rate = throughput(&mut engine, &uniform, rate);
    let mut sequences = 1365;
    let mut ragged = queries(&checkpoint, sequences, 1).remove(0);
    while ragged.tokens() > LARGEST.tokens {
        sequences -= 1;
        ragged = queries(&checkpoint, sequences, 1).remove(0);
    }
    let ragged_rate = throughput(&mut engine, &ragged, rate);
    println!(
        "tokens a second, queries against 128 x 128: {:.3}",
        ragged_rate / uniform_rate
    );
    for size in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        let batch = &queries(&checkpoint, size, 1)[0];
        let times = Times::of(&mut engine, batch, 100);
        println!("{size} queries, {} tokens: {times}", batch.tokens());
    }
    pipelined(&mut engine, &queries(&checkpoint, 32, 50));
    true
}

/// The times of a batch.
struct Times {
    /// The kernels alone: the mean time from one replay to the next.
    kernels: Duration,
    /// The batch with its copies in and out, by the device's clock (median). Another batch always follows, so
    /// that the device never waits for the host.
    batch: Duration,
    /// From submission to the logits on the host, with nothing else in flight (median).
    answer: Duration,
}

impl Times {
    fn of(engine: &mut Cuda, batch: &RaggedBatch, runs: u32) -> Self {
        warm(engine, batch);
        let (mut device, mut host) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let start = Instant::now();
            engine.forward(batch).unwrap();
            host.push(start.elapsed());
        }
        engine.submit(batch).unwrap();
        for _ in 0..runs {
            engine.submit(batch).unwrap();
            let before = engine.device_time().unwrap();
            engine.collect().unwrap();
            device.push(engine.device_time().unwrap() - before);
        }
        engine.collect().unwrap();
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        Self {
            kernels: engine.time_kernels(batch, runs).unwrap(),
            batch: median(device),
            answer: median(host),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kernels,
            batch,
            answer,
        } = self;
        write!(
            f,
            "kernels {kernels:.1?}, batch {batch:.1?}, answer {answer:.1?}"
        )
    }
}

/// Measures the gain of kernels that start before the previous one has ended, in three alternating rounds.
fn overlap(engine: &mut Cuda, batch: &RaggedBatch, runs: u32) {
    for _ in 0..3 {
        for allowed in [false, true] {
            engine.device().allow_overlap(allowed);
            let kernels = engine.time_kernels(batch, runs).unwrap();
            println!(
                "kernels of {} tokens, overlap {allowed}: {kernels:.1?}",
                batch.tokens()
            );
        }
    }
}

/// Measures tokens a second by the device's clock.
fn throughput(engine: &mut Cuda, batch: &RaggedBatch, rate: f64) -> f64 {
    let times = Times::of(engine, batch, 20);
    // The target is about the kernels alone; the printed line also shows the time with copies.
    let device = times.kernels;
    let tokens = batch.tokens() as f64;
    let pairs: f64 = batch
        .ranges()
        .map(|range| (range.len() as f64).powi(2))
        .sum();
    let share = |flop: f64| 100.0 * flop / device.as_secs_f64() / rate;
    // Counted as in benches/gpu/estimate.py. In the last layer all tokens need only keys and values, so that
    // 10 of 12 parts are not computed.
    let whole = share(tokens * FLOP_PER_TOKEN + pairs * FLOP_PER_PAIR);
    let done = share(tokens * FLOP_PER_TOKEN * (1.0 - 10.0 / 12.0 / 12.0));
    println!(
        "{} sequences, {} tokens: {times}; kernels at {whole:.0} % of the product's rate for the whole of BERT, \
         {done:.0} % for the products computed",
        batch.sequences(),
        batch.tokens(),
    );
    tokens / device.as_secs_f64()
}

/// Measures the FLOP/s of a square product in f16: the best of five runs of ten.
fn product_rate(device: &Device, n: usize) -> f64 {
    let shape = ProductShape {
        dtype: Dtype::F16,
        rows: n,
        inner: n,
        outer: n,
        bias: false,
        residual: false,
    };
    let [x, w, y] = [(); 3].map(|()| device.zeros(Dtype::F16, n * n).unwrap());
    // Random values: zeros switch fewer transistors and run faster.
    let mut pinned = device.pinned(x.bytes()).unwrap();
    let mut state: u32 = 1;
    for word in pinned.write_u32().unwrap() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Two values from 1 to 2 with random signs.
        *word = 0x3c00_3c00 | (state >> 3 & 0x83ff_83ff);
    }
    device.upload(&mut pinned, &x).unwrap();
    device.upload(&mut pinned, &w).unwrap();
    let product = Product {
        shape,
        x: &x,
        w,
        bias: None,
        residual: None,
        y: &y,
    };
    while !device.tune(&product).unwrap() {}
    let run = || {
        let start = device.mark().unwrap();
        for _ in 0..10 {
            device.product(&product).unwrap();
        }
        let end = device.mark().unwrap();
        start.until(&end).unwrap().as_secs_f64() / 10.0
    };
    let fastest = (0..5).map(|_| run()).fold(f64::INFINITY, f64::min);
    2.0 * (n as f64).powi(3) / fastest
}

/// Measures the share of time for which the device is busy with two batches in flight.
fn pipelined(engine: &mut Cuda, batches: &[RaggedBatch]) {
    for batch in batches {
        warm(engine, batch);
    }
    let before = engine.device_time().unwrap();
    let start = Instant::now();
    engine.submit(&batches[0]).unwrap();
    for _ in 0..20 {
        for batch in batches {
            engine.submit(batch).unwrap();
            engine.collect().unwrap();
        }
    }
    engine.collect().unwrap();
    let wall = start.elapsed();
    let busy = engine.device_time().unwrap() - before;
    println!(
        "batches of 32 back to back: {:.0} queries a second, device busy {:.1} % of the time",
        (20 * batches.len() * 32) as f64 / wall.as_secs_f64(),
        100.0 * busy.as_secs_f64() / wall.as_secs_f64()
    );
}
