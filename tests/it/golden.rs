//! The engines' logits against those of Hugging Face transformers.

use std::num::NonZeroUsize;
use std::path::Path;

use intentd::engine::{self, Cuda, CudaOptions, Engine, EngineKind, EngineOptions, RaggedBatch};
use intentd::model::{Checkpoint, Encoded, Text, TooLong};
use intentd_kernels::{Capacity, Device, DeviceError, Dtype, Emulation};

use crate::support::checkpoint::catalog;
use crate::support::golden::{self, Answers, Covers, Texts};

/// Against transformers in float32, whose own distance to float64 is below 2e-5.
const ERROR_MAX: f32 = 1e-4;
/// The same text in two batches.
const NEIGHBOUR_EFFECT_MAX: f32 = 1e-5;
/// Against the scores of transformers' pipeline, from its own logits.
const SCORE_ERROR_MAX: f32 = 1e-6;

/// How much is asked of a checkpoint besides all texts in batches of 64 on the CPU.
#[derive(Clone, Copy)]
struct Effort {
    /// Texts up to this length are repeated in other batches and by the reference.
    repeated_tokens_max: usize,
    /// As many texts as have so many tokens together go through candle and the emulated device.
    others_tokens: usize,
    /// Types of the emulated device, and what it may differ by: of the largest logit.
    cuda: &'static [(Dtype, f32)],
}

const ALL: Effort = Effort {
    repeated_tokens_max: usize::MAX,
    others_tokens: 2000,
    cuda: &[(Dtype::F32, 1e-3), (Dtype::F16, 1e-2)],
};

/// Three of its texts are half the work, and the emulator converts a million weights a second.
const BASE: Effort = Effort {
    repeated_tokens_max: 160,
    others_tokens: 48,
    cuda: &[(Dtype::F32, 1e-3)],
};

#[test]
fn bert_base() {
    check_random("base", BASE);
}

#[test]
fn old_names_and_odd_head_size() {
    check_random("cased", ALL);
}

#[test]
fn sharded_f16_with_several_labels_a_text() {
    check_random("multilabel", ALL);
}

#[test]
fn bf16_with_one_logit() {
    check_random("bf16", ALL);
}

#[test]
fn embedded_model() {
    let answers: Answers = golden::read("intent-snips.logits.json").unwrap();
    let directory = golden::embedded(Covers::Model, &answers.sha256).unwrap();
    check(&directory, &answers, ALL);
}

fn check_random(name: &str, effort: Effort) {
    let answers: Answers = golden::read(&format!("{name}.logits.json")).unwrap();
    let spec = catalog::spec(name).unwrap();
    let directory = golden::checkpoint(&spec, Covers::Model, &answers.sha256).unwrap();
    check(directory.path(), &answers, effort);
}

/// A text or pair, and what transformers answers to it.
struct Case<'a> {
    input: Encoded,
    logits: &'a [f32],
}

fn check(directory: &Path, answers: &Answers, effort: Effort) {
    let checkpoint = Checkpoint::open(directory).unwrap();
    check_scores(&checkpoint, answers);
    let cases = cases(&checkpoint, answers);
    let mut cpu = load(EngineKind::Native, &checkpoint);
    let together = logits(&mut *cpu, &cases, 64);
    assert_close(
        "cpu, batches of 64",
        &together,
        &expected(&cases),
        ERROR_MAX,
    );

    let (repeated, together): (Vec<Case<'_>>, Vec<Vec<f32>>) = cases
        .into_iter()
        .zip(together)
        .filter(|(case, _)| case.input.ids.len() <= effort.repeated_tokens_max)
        .unzip();
    for size in [7, 1] {
        let found = logits(&mut *cpu, &repeated, size);
        let what = format!("cpu, batches of {size}");
        assert_close(&what, &found, &expected(&repeated), ERROR_MAX);
        let what = format!("cpu, batches of 64 and of {size}");
        assert_close(&what, &found, &together, NEIGHBOUR_EFFECT_MAX);
    }
    // The reference computes one text at a time whatever the batch, so one size will do.
    let found = logits(
        &mut *load(EngineKind::Reference, &checkpoint),
        &repeated,
        64,
    );
    assert_close("reference", &found, &expected(&repeated), ERROR_MAX);
    let mut budget = effort.others_tokens;
    let some: Vec<Case<'_>> = repeated
        .into_iter()
        .filter(|case| match budget.checked_sub(case.input.ids.len()) {
            Some(left) => {
                budget = left;
                true
            }
            None => false,
        })
        .collect();
    assert!(some.len() > 1);
    let found = logits(&mut *load(EngineKind::Candle, &checkpoint), &some, 7);
    assert_close("candle", &found, &expected(&some), ERROR_MAX);
    check_cuda(&checkpoint, &some, effort.cuda);
}

/// The CUDA engine, its kernels run by the emulator. Batches of one go the way for few tokens,
/// those of 40 through the library's products.
fn check_cuda(checkpoint: &Checkpoint, cases: &[Case<'_>], dtypes: &[(Dtype, f32)]) {
    let logits_of_all = cases.iter().flat_map(|case| case.logits);
    let largest = logits_of_all.fold(0.0_f32, |max, logit| max.max(logit.abs()));
    for &(dtype, error_max) in dtypes {
        let device = match Device::emulator(Emulation::default()) {
            Ok(device) => device,
            Err(DeviceError::Unavailable(why)) => return println!("cuda: skipped, {why}"),
            Err(error) => panic!("{error}"),
        };
        let options = CudaOptions {
            dtype,
            largest: Capacity {
                tokens: 4096,
                sequences: 64,
            },
            graphs_max: 4,
        };
        let mut engine = Cuda::load(checkpoint, device, options).unwrap();
        for size in [1, 40] {
            let found = logits(&mut engine, cases, size);
            let what = format!("cuda {} emulated, batches of {size}", dtype.name());
            assert_close(&what, &found, &expected(cases), error_max * largest);
        }
    }
}

fn expected<'a>(cases: &[Case<'a>]) -> Vec<&'a [f32]> {
    cases.iter().map(|case| case.logits).collect()
}

fn load(kind: EngineKind, checkpoint: &Checkpoint) -> Box<dyn Engine> {
    let threads = NonZeroUsize::new(2).unwrap();
    let options = EngineOptions::cpu(kind, threads);
    engine::load(checkpoint, options).unwrap().engine
}

/// Labels and the activation of the pipeline, by the pipeline's own logits.
fn check_scores(checkpoint: &Checkpoint, answers: &Answers) {
    let labels: Vec<&str> = checkpoint.labels.names().collect();
    assert_eq!(labels, answers.labels);
    for golden in &answers.scores {
        let scores = checkpoint.labels.scores(&answers.logits[golden.text]);
        for (label, expected) in answers.labels.iter().zip(&golden.scores) {
            let found = scores
                .iter()
                .find(|score| *score.label == **label)
                .unwrap()
                .score;
            let error = (found - expected).abs();
            assert!(
                error <= SCORE_ERROR_MAX,
                "text {}, {label}: {found}",
                golden.text
            );
        }
    }
}

/// All single texts and all pairs, encoded by our tokenizer.
fn cases<'a>(checkpoint: &Checkpoint, answers: &'a Answers) -> Vec<Case<'a>> {
    let texts: Texts = golden::read("texts.json").unwrap();
    assert!(texts.classification.len() >= 64);
    assert_eq!(texts.classification.len(), answers.logits.len());
    assert_eq!(texts.pairs.len(), answers.pairs.len());
    let encode = |text: &Text| {
        checkpoint
            .tokenizer
            .encode(text, TooLong::Truncate)
            .unwrap()
    };
    let mut cases = Vec::new();
    for (text, logits) in texts.classification.iter().zip(&answers.logits) {
        cases.push(Case {
            input: encode(&Text::Single(text.expand())),
            logits,
        });
    }
    let lengths: Vec<usize> = cases.iter().map(|case| case.input.ids.len()).collect();
    assert_eq!(lengths, answers.lengths);
    for ((first, second), golden) in texts.pairs.iter().zip(&answers.pairs) {
        let input = encode(&Text::Pair(first.expand(), second.expand()));
        assert_eq!(input.ids, golden.ids);
        assert_eq!(input.type_ids, golden.type_ids);
        cases.push(Case {
            input,
            logits: &golden.logits,
        });
    }
    cases
}

fn logits(engine: &mut dyn Engine, cases: &[Case<'_>], batch_size: usize) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for chunk in cases.chunks(batch_size) {
        let mut batch = RaggedBatch::new();
        for Case { input, .. } in chunk {
            batch.push(&input.ids, &input.type_ids);
        }
        let logits = engine.forward(&batch).unwrap();
        rows.extend(logits.rows().map(<[f32]>::to_vec));
    }
    rows
}

fn assert_close<A: AsRef<[f32]>, B: AsRef<[f32]>>(what: &str, a: &[A], b: &[B], error_max: f32) {
    assert_eq!(a.len(), b.len(), "{what}");
    let mut worst = (0.0_f32, 0);
    for (text, (a, b)) in a.iter().zip(b).enumerate() {
        let (a, b) = (a.as_ref(), b.as_ref());
        assert_eq!(a.len(), b.len(), "{what}: text {text}");
        for (a, b) in a.iter().zip(b) {
            let error = (a - b).abs();
            // NaN compares false and must not pass.
            assert!(error.is_finite(), "{what}: text {text} has logit {a}");
            worst = if error > worst.0 {
                (error, text)
            } else {
                worst
            };
        }
    }
    println!("{what}: at most {:.1e} apart (text {})", worst.0, worst.1);
    assert!(
        worst.0 <= error_max,
        "{what}: {} apart at text {}",
        worst.0,
        worst.1
    );
}
