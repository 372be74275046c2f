//! Checkpoints and batches for the GPU benches.

use std::path::Path;

use intentd::engine::{Cuda, CudaOptions, Engine, RaggedBatch};
use intentd::model::{Checkpoint, Text, TooLong};
use intentd_kernels::{Capacity, Device, Dtype};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::checkpoint::{catalog, write};

/// The largest batch on a GPU.
pub(crate) const LARGEST: Capacity = Capacity {
    tokens: 16_384,
    sequences: 2048,
};

/// The largest batch on the emulator.
pub(crate) const SMALL: Capacity = Capacity {
    tokens: 1024,
    sequences: 64,
};

/// The embedded checkpoint for `embedded`, else one with random weights from the tests' catalogue. `base` has
/// the shape of BERT-base.
pub(crate) fn checkpoint(name: &str) -> Checkpoint {
    if name == "embedded" {
        return Checkpoint::embedded().unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    write(&catalog::spec(name).unwrap(), directory.path()).unwrap();
    // The files stay mapped after their folder is removed.
    Checkpoint::open(directory.path()).unwrap()
}

pub(crate) fn engine(checkpoint: &Checkpoint, device: &Device, dtype: Dtype, small: bool) -> Cuda {
    let options = CudaOptions {
        dtype,
        largest: if small { SMALL } else { LARGEST },
        graphs_max: 128,
    };
    Cuda::load(checkpoint, device.clone(), options).unwrap()
}

/// The texts of the data sets that exist, else the probes of the embedded model.
pub(crate) fn texts(files: &[&str]) -> Vec<String> {
    let found: Vec<&&str> = files
        .iter()
        .filter(|file| Path::new(file).exists())
        .collect();
    let probes = "models/intent-snips/probes.jsonl";
    let read = |file: &str| -> Vec<String> {
        let lines = std::fs::read_to_string(file).unwrap();
        let text = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["text"].as_str().unwrap().to_owned()
        };
        lines.lines().map(text).collect()
    };
    if found.is_empty() {
        eprintln!("texts: {probes}, since there is none of {files:?}");
        return read(probes);
    }
    found.into_iter().flat_map(|file| read(file)).collect()
}

pub(crate) const SNIPS: &str = "../shared/data/snips/test.jsonl";
pub(crate) const CLINC: &str = "../shared/data/clinc150/test.jsonl";

/// `count` batches of `size` texts, which are repeated as needed.
pub(crate) fn batches(
    checkpoint: &Checkpoint,
    texts: &[String],
    size: usize,
    count: usize,
) -> Vec<RaggedBatch> {
    let mut texts = texts.iter().cycle();
    let mut batch = || {
        let mut batch = RaggedBatch::new();
        for text in texts.by_ref().take(size) {
            let text = Text::Single(text.clone());
            let encoded = checkpoint.tokenizer.encode(&text, TooLong::Truncate);
            let encoded = encoded.unwrap();
            batch.push(&encoded.ids, &encoded.type_ids);
        }
        batch
    };
    (0..count).map(|_| batch()).collect()
}

/// Batches of random ids. The sequences are as long as the texts of the SNIPS test set with the embedded
/// model's tokenizer, about 11 tokens; the tokenizer of a random checkpoint knows few words and would make
/// twice as many. Type ids are zero.
pub(crate) fn queries(checkpoint: &Checkpoint, size: usize, count: usize) -> Vec<RaggedBatch> {
    let embedded = Checkpoint::embedded().unwrap();
    let texts = texts(&[SNIPS]);
    let lengths: Vec<usize> = batches(&embedded, &texts, texts.len(), 1)[0]
        .ranges()
        .map(|range| range.len())
        .collect();
    let mut lengths = lengths.into_iter().cycle();
    let plain = |seed| {
        let lengths: Vec<usize> = lengths.by_ref().take(size).collect();
        let ids = random(checkpoint, &lengths, seed);
        let mut batch = RaggedBatch::new();
        for range in ids.ranges() {
            batch.push(&ids.ids()[range.clone()], &vec![0; range.len()]);
        }
        batch
    };
    (0..count as u64).map(plain).collect()
}

/// Random ids in sequences of these lengths.
pub(crate) fn random(checkpoint: &Checkpoint, lengths: &[usize], seed: u64) -> RaggedBatch {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let words = u32::try_from(checkpoint.config.vocab_size).unwrap();
    let types = u32::try_from(checkpoint.config.type_vocab_size).unwrap();
    let mut batch = RaggedBatch::new();
    for length in lengths {
        let ids: Vec<u32> = (0..*length)
            .map(|_| random.random_range(0..words))
            .collect();
        let type_ids: Vec<u32> = ids.iter().map(|_| random.random_range(0..types)).collect();
        batch.push(&ids, &type_ids);
    }
    batch
}

/// Runs a batch until its products are tuned and its graph is recorded.
pub(crate) fn warm(engine: &mut Cuda, batch: &RaggedBatch) {
    engine.forward(batch).unwrap();
    // Each call is one step: about ten products with several algorithms each, and the recording.
    for _ in 0..100 {
        engine.upkeep().unwrap();
    }
    engine.forward(batch).unwrap();
}
