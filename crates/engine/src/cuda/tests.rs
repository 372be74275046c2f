//! The CUDA engine on the emulated device, compared with the reference.

use intentd_kernels::{Capacity, Device, DeviceError, Dtype, Emulation};

use super::{Cuda, CudaOptions};
use crate::batch::{Logits, RaggedBatch};
use crate::error::EngineError;
use crate::interface::Engine;
use crate::reference::Reference;
use intentd_model::{Checkpoint, Text, TooLong};

#[path = "../../tests/folders/case.rs"]
#[expect(dead_code, reason = "shared with the test of folders")]
mod case;

const OPTIONS: CudaOptions = CudaOptions {
    dtype: Dtype::F16,
    largest: Capacity {
        tokens: 512,
        sequences: 40,
    },
    graphs_max: 4,
};

/// An emulated device. `None` without a C++ compiler: the test is then skipped.
fn device(emulation: Emulation) -> Option<Device> {
    match Device::emulator(emulation) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint::embedded().expect("the embedded model")
}

fn engine(options: CudaOptions) -> Option<(Cuda, Device)> {
    let device = device(Emulation::default())?;
    let engine = Cuda::load(&checkpoint(), device.clone(), options).expect("a model that fits");
    Some((engine, device))
}

/// Sequences of these lengths, different for every `seed`.
fn batch(lengths: &[usize], seed: u32) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    let mut state = seed;
    for length in lengths {
        let ids: Vec<u32> = (0..*length)
            .map(|_| {
                state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                1 + (state >> 16) % 900
            })
            .collect();
        batch.push(&ids, &vec![0; *length]);
    }
    batch
}

fn reference(batch: &RaggedBatch) -> Logits {
    let mut reference = Reference::load(&checkpoint()).expect("the reference");
    reference.forward(batch).expect("reference logits")
}

/// The largest difference, relative to the largest logit.
fn distance(found: &Logits, expected: &Logits) -> f32 {
    assert_eq!(found.rows().len(), expected.rows().len());
    let largest = expected
        .rows()
        .flatten()
        .fold(0.0_f32, |m, v| m.max(v.abs()));
    let pairs = found.rows().flatten().zip(expected.rows().flatten());
    // `max` would ignore a NaN.
    pairs
        .map(|(found, expected)| (found - expected).abs() / largest)
        .fold(0.0, |worst, d| if d <= worst { worst } else { d })
}

const SHAPES: [&[usize]; 5] = [&[5], &[12, 9, 16, 3], &[64], &[30, 30, 5], &[12; 40]];

#[test]
fn logits_match_the_reference_in_every_type() {
    for (dtype, error_max) in [(Dtype::F32, 1e-5), (Dtype::F16, 1e-2), (Dtype::Bf16, 6e-2)] {
        let Some((mut engine, _)) = engine(CudaOptions { dtype, ..OPTIONS }) else {
            return;
        };
        for (seed, lengths) in (1..).zip(SHAPES) {
            let batch = batch(lengths, seed);
            let found = engine.forward(&batch).expect("logits");
            let distance = distance(&found, &reference(&batch));
            assert!(distance <= error_max, "{dtype:?} {lengths:?}: {distance}");
        }
    }
}

/// Projected embeddings, on both paths; shared layers; other activations of the pooler; no token types; later positions.
#[test]
fn logits_of_every_family_match_the_reference() {
    let golden = case::Golden::read();
    for name in [
        "electra plain",
        "electra larger",
        "albert two groups",
        "distilbert plain",
        "roberta plain",
    ] {
        let case = golden.cases.iter().find(|case| case.name == name);
        let files = golden.files(case.expect("a case of this name"));
        let checkpoint = Checkpoint::read(&files).expect("a checkpoint");
        let mut reference = Reference::load(&checkpoint).expect("the reference");
        // The second is too large for the path for few tokens.
        let batches = [1, 12].map(|times| texts(&checkpoint, times));
        let expected = batches
            .each_ref()
            .map(|batch| reference.forward(batch).expect("reference logits"));
        for (dtype, error_max) in [(Dtype::F32, 1e-5), (Dtype::F16, 1e-2)] {
            let Some(device) = device(Emulation::default()) else {
                return;
            };
            let options = CudaOptions { dtype, ..OPTIONS };
            let mut engine = Cuda::load(&checkpoint, device, options).expect("a model that fits");
            for (batch, expected) in batches.iter().zip(&expected) {
                let found = engine.forward(batch).expect("logits");
                let distance = distance(&found, expected);
                assert!(distance <= error_max, "{name}, {dtype:?}: {distance}");
                for _ in 0..20 {
                    engine.upkeep().expect("a graph");
                }
                let replayed = engine.forward(batch).expect("logits");
                assert_eq!(replayed, found, "{name}, {dtype:?}");
            }
        }
    }
}

/// Three texts, `times` times.
fn texts(checkpoint: &Checkpoint, times: usize) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    for text in ["play some jazz", "what is the weather today", "stop"].repeat(times) {
        let text = Text::Single(text.to_owned());
        let encoded = checkpoint.tokenizer.encode(&text, TooLong::Refuse);
        let encoded = encoded.expect("tokens");
        batch.push(&encoded.ids, &encoded.type_ids);
    }
    batch
}

#[test]
fn a_graph_gives_the_same_logits_as_its_launches() {
    let Some((mut engine, device)) = engine(OPTIONS) else {
        return;
    };
    for (seed, lengths) in (1..).zip(SHAPES) {
        let first = batch(lengths, seed);
        let launched = engine.forward(&first).expect("logits");
        // Enough steps to tune all products and to record.
        let before = engine.graphs();
        for _ in 0..20 {
            engine.upkeep().expect("a graph");
        }
        assert!(
            engine.graphs() > before || before == OPTIONS.graphs_max,
            "{lengths:?}"
        );
        // Another batch of the same bucket with other lengths must leave no traces.
        let mut shorter = lengths.to_vec();
        shorter[0] -= 1;
        let other = batch(&shorter, seed + 100);
        let found = engine.forward(&other).expect("logits");
        assert!(distance(&found, &reference(&other)) <= 1e-2, "{shorter:?}");
        let before = device.counters();
        assert_eq!(
            engine.forward(&first).expect("logits"),
            launched,
            "{lengths:?}"
        );
        let after = device.counters();
        assert_eq!(after.replays, before.replays + 1, "{lengths:?}");
        assert_eq!(after.launches, before.launches, "{lengths:?}");
    }
    assert_eq!(
        engine.graphs(),
        OPTIONS.graphs_max,
        "five buckets, room for four"
    );
}

#[test]
fn without_graphs_everything_runs_launch_by_launch() {
    let Some((mut engine, device)) = engine(CudaOptions {
        graphs_max: 0,
        ..OPTIONS
    }) else {
        return;
    };
    let batch = batch(&[7], 1);
    for _ in 0..3 {
        engine.forward(&batch).expect("logits");
        engine.upkeep().expect("nothing to do");
    }
    let counters = device.counters();
    assert_eq!((counters.captures, counters.replays), (0, 0));
}

#[test]
fn two_batches_are_enqueued_without_waiting_and_answered_in_order() {
    let Some((mut engine, device)) = engine(OPTIONS) else {
        return;
    };
    let batches: Vec<RaggedBatch> = (1..8)
        .map(|seed| batch(&[seed as usize, 9, 4], seed))
        .collect();
    let expected: Vec<Logits> = batches.iter().map(reference).collect();
    let before = device.counters();
    engine.submit(&batches[0]).expect("room for two");
    for (index, expected) in expected.iter().enumerate() {
        if let Some(next) = batches.get(index + 1) {
            let waits = device.counters().waits;
            engine.submit(next).expect("room for two");
            assert_eq!(device.counters().waits, waits, "submitting never waits");
        }
        let found = engine.collect().expect("logits");
        assert!(distance(&found, expected) <= 1e-2, "batch {index}");
    }
    let after = device.counters();
    assert_eq!(
        after.allocations, before.allocations,
        "batches allocate nothing"
    );
    assert_eq!(after.waits - before.waits, batches.len() as u64);
}

#[test]
fn tuning_and_recording_between_batches_do_not_change_logits() {
    let Some((mut engine, _)) = engine(OPTIONS) else {
        return;
    };
    let lengths = [20, 31, 27, 40];
    let batches: Vec<RaggedBatch> = (1..20).map(|seed| batch(&lengths, seed)).collect();
    engine.submit(&batches[0]).expect("room for two");
    for (index, expected) in batches.iter().map(reference).enumerate() {
        if let Some(next) = batches.get(index + 1) {
            engine.submit(next).expect("room for two");
        }
        engine.upkeep().expect("a step");
        let found = engine.collect().expect("logits");
        assert!(distance(&found, &expected) <= 1e-2, "batch {index}");
    }
    assert_eq!(engine.graphs(), 1);
}

#[test]
fn a_batch_beyond_the_largest_is_out_of_memory_and_the_next_is_not() {
    let Some((mut engine, _)) = engine(OPTIONS) else {
        return;
    };
    let largest = engine.largest().expect("it knows");
    let too_many = vec![2; largest.sequences + 1];
    let too_long = vec![64; largest.tokens / 64 + 1];
    for lengths in [too_many, too_long] {
        let batch = batch(&lengths, 1);
        let tokens = batch.tokens();
        assert_eq!(
            engine.submit(&batch),
            Err(EngineError::OutOfMemory { tokens })
        );
    }
    engine
        .forward(&batch(&[3], 2))
        .expect("the engine is as good as before");
}

#[test]
fn the_largest_batch_is_halved_until_its_buffers_fit() {
    let options = CudaOptions {
        largest: Capacity {
            tokens: 1 << 16,
            sequences: 256,
        },
        ..OPTIONS
    };
    let Some(device) = device(Emulation {
        memory_bytes: 64 << 20,
        ..Emulation::default()
    }) else {
        return;
    };
    let mut engine = Cuda::load(&checkpoint(), device, options).expect("a smaller batch fits");
    let largest = engine.largest().expect("it knows");
    assert!(largest.tokens < 1 << 16, "{largest:?}");
    let batch = batch(&[9, 20], 1);
    let found = engine.forward(&batch).expect("logits");
    assert!(distance(&found, &reference(&batch)) <= 1e-2);
}

#[test]
fn weights_that_do_not_fit_are_an_out_of_memory_error() {
    let Some(device) = device(Emulation {
        memory_bytes: 1 << 20,
        ..Emulation::default()
    }) else {
        return;
    };
    let error = Cuda::load(&checkpoint(), device, OPTIONS).expect_err("no room");
    assert!(error.to_string().contains("out of memory"), "{error}");
}

#[test]
fn a_lost_device_is_a_lost_engine() {
    // Enough launches to load and to answer once.
    for lost_after in [200, 230, 260] {
        let Some(device) = device(Emulation {
            lost_after: Some(lost_after),
            ..Emulation::default()
        }) else {
            return;
        };
        let mut engine = Cuda::load(&checkpoint(), device, OPTIONS).expect("still well");
        let batch = batch(&[3, 4], 1);
        let lost = (0..100).find_map(|_| engine.forward(&batch).err());
        assert!(matches!(lost, Some(EngineError::Lost(_))), "{lost:?}");
        assert!(matches!(engine.forward(&batch), Err(EngineError::Lost(_))));
    }
}

#[test]
fn bf16_is_refused_before_ampere() {
    let Some(turing) = device(Emulation {
        compute_capability: (7, 5),
        ..Emulation::default()
    }) else {
        return;
    };
    let options = CudaOptions {
        dtype: Dtype::Bf16,
        ..OPTIONS
    };
    let error = Cuda::load(&checkpoint(), turing.clone(), options).expect_err("no bf16");
    assert!(error.to_string().contains("--dtype f16"), "{error}");
    Cuda::load(&checkpoint(), turing, OPTIONS).expect("f16 works");
}

#[test]
fn ids_without_a_row_fail_only_the_batch() {
    let Some((mut engine, _)) = engine(OPTIONS) else {
        return;
    };
    let mut bad = RaggedBatch::new();
    bad.push(&[u32::MAX], &[0]);
    assert!(matches!(engine.submit(&bad), Err(EngineError::Batch(_))));
    engine
        .forward(&batch(&[3], 2))
        .expect("the engine is as good as before");
    let unknown = DeviceError::Failed("x".to_owned());
    assert!(matches!(
        super::engine_error(unknown, 1),
        EngineError::Batch(_)
    ));
}
