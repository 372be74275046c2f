//! The engines' logits against those of Hugging Face transformers.

use std::num::NonZeroUsize;
use std::path::Path;

use intentd::engine::{self, Engine, EngineKind, RaggedBatch};
use intentd::model::{Checkpoint, Encoded, Text, TooLong};

use crate::support::checkpoint::catalog;
use crate::support::golden::{self, Answers, Covers, Texts};

/// Against transformers in float32, whose own distance to float64 is below 2e-5.
const ERROR_MAX: f32 = 1e-4;
/// The same text in two batches.
const NEIGHBOUR_EFFECT_MAX: f32 = 1e-5;
/// Against the scores of transformers' pipeline, from its own logits.
const SCORE_ERROR_MAX: f32 = 1e-6;

const BATCH_SIZES: [usize; 3] = [64, 7, 1];

#[test]
fn bert_base() {
    check_random("base");
}

#[test]
fn old_names_and_odd_head_size() {
    check_random("cased");
}

#[test]
fn sharded_f16_with_several_labels_a_text() {
    check_random("multilabel");
}

#[test]
fn bf16_with_one_logit() {
    check_random("bf16");
}

#[test]
fn embedded_model() {
    let answers: Answers = golden::read("intent-snips.logits.json").unwrap();
    let directory = golden::embedded(Covers::Model, &answers.sha256).unwrap();
    check(&directory, &answers);
}

fn check_random(name: &str) {
    let answers: Answers = golden::read(&format!("{name}.logits.json")).unwrap();
    let spec = catalog::spec(name).unwrap();
    let directory = golden::checkpoint(&spec, Covers::Model, &answers.sha256).unwrap();
    check(directory.path(), &answers);
}

fn check(directory: &Path, answers: &Answers) {
    let checkpoint = Checkpoint::open(directory).unwrap();
    check_scores(&checkpoint, answers);
    let inputs = inputs(&checkpoint, answers);
    let expected: Vec<&[f32]> = answers.logits.iter().map(Vec::as_slice).collect();
    let pairs = answers.pairs.iter().map(|pair| pair.logits.as_slice());
    let expected: Vec<&[f32]> = expected.into_iter().chain(pairs).collect();

    // The reference takes one text at a time whatever the batch, so one size will do.
    let mut reference = load(EngineKind::Reference, &checkpoint);
    let found = logits(&mut *reference, &inputs, BATCH_SIZES[0]);
    assert_close("reference", &found, &expected, ERROR_MAX);
    drop(reference);

    let mut cpu = load(EngineKind::Cpu, &checkpoint);
    let mut first: Option<Vec<Vec<f32>>> = None;
    for size in BATCH_SIZES {
        let found = logits(&mut *cpu, &inputs, size);
        assert_close(
            &format!("cpu, batches of {size}"),
            &found,
            &expected,
            ERROR_MAX,
        );
        match &first {
            None => first = Some(found),
            Some(first) => {
                let what = format!("cpu, batches of {} and of {size}", BATCH_SIZES[0]);
                assert_close(&what, &found, first, NEIGHBOUR_EFFECT_MAX);
            }
        }
    }
}

fn load(kind: EngineKind, checkpoint: &Checkpoint) -> Box<dyn Engine> {
    let threads = NonZeroUsize::new(2).unwrap();
    engine::load(kind, checkpoint, threads).unwrap()
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
fn inputs(checkpoint: &Checkpoint, answers: &Answers) -> Vec<Encoded> {
    let texts: Texts = golden::read("texts.json").unwrap();
    assert!(texts.classification.len() >= 64);
    let encode = |text: &Text| {
        checkpoint
            .tokenizer
            .encode(text, TooLong::Truncate)
            .unwrap()
    };
    let singles = texts
        .classification
        .iter()
        .map(|text| encode(&Text::Single(text.expand())));
    let mut inputs: Vec<Encoded> = singles.collect();
    let lengths: Vec<usize> = inputs.iter().map(|input| input.ids.len()).collect();
    assert_eq!(lengths, answers.lengths);
    for ((first, second), golden) in texts.pairs.iter().zip(&answers.pairs) {
        let input = encode(&Text::Pair(first.expand(), second.expand()));
        assert_eq!(input.ids, golden.ids);
        assert_eq!(input.type_ids, golden.type_ids);
        inputs.push(input);
    }
    inputs
}

fn logits(engine: &mut dyn Engine, inputs: &[Encoded], batch_size: usize) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for chunk in inputs.chunks(batch_size) {
        let mut batch = RaggedBatch::new();
        chunk
            .iter()
            .for_each(|input| batch.push(&input.ids, &input.type_ids));
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
