//! The CPU engine: our own BERT forward pass over ragged batches.
//!
//! Weights are cut into panels once at load. Linear layers run on all tokens of a batch at once,
//! attention on each sequence by itself; nothing is computed for padding, and the last layer
//! computes only what the `[CLS]` rows need, since only they feed the classifier.
//!
//! A batch that is small runs on one thread. Otherwise a team of threads either shares out each
//! step (the columns of products, the rows of what lies between them), so that each weight is
//! read once; or, where the weights fit the cache, each thread takes some sequences and nobody
//! waits for anybody.

mod forward;
mod load;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use intentd_kernels::cpu::{Form, INT8_INPUTS_MAX, Isa, IsaLimit, Team};

use self::forward::{Bert, Part, Scratch};
use super::{Dtype, Engine, EngineError, Logits, RaggedBatch};
use crate::model::{Checkpoint, CheckpointError};

/// Batches of fewer multiply-adds than this a thread run on the engine's own thread: waking
/// another costs tens of microseconds.
const MULTIPLY_ADDS_PER_THREAD: usize = 2 << 20;

/// A batch is split by sequence when there is at least one token for this much of the weights. Below
/// it, that every thread reads all weights costs more than the waits between steps that it saves:
/// measured on two cores with models of 0.4 to 340 MB, the break-even lies at 17 to 40 KB.
const WEIGHT_BYTES_PER_TOKEN: usize = 24 << 10;

/// What a CPU engine is made from, besides a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// f32, bf16 (weights only) or int8.
    pub dtype: Dtype,
    /// Threads that compute, the caller's included.
    pub threads: NonZeroUsize,
    /// Instructions to use at most.
    pub isa: IsaLimit,
}

impl CpuOptions {
    /// f32, with the best instructions of this machine.
    pub fn f32(threads: NonZeroUsize) -> Self {
        Self {
            dtype: Dtype::F32,
            threads,
            isa: IsaLimit::Avx512,
        }
    }
}

/// Our own BERT forward pass for the CPU.
#[derive(Debug)]
pub struct Cpu {
    bert: Bert,
    team: Team,
    shared: Scratch,
    /// One for each thread, to work on sequences of its own.
    alone: Vec<Mutex<Alone>>,
    done: VecDeque<Logits>,
}

/// What a thread needs to run a forward pass by itself.
#[derive(Debug)]
struct Alone {
    team: Team,
    scratch: Scratch,
    /// Its part of the batch, and the logits of it.
    sequences: Range<usize>,
    logits: Vec<f32>,
}

impl Cpu {
    /// Prepares the weights for the instructions of this machine.
    ///
    /// # Errors
    /// When a tensor cannot be read, there is no such type on the CPU, or the operating system
    /// gives no threads.
    pub fn load(checkpoint: &Checkpoint, options: CpuOptions) -> Result<Self, CheckpointError> {
        let CpuOptions {
            dtype,
            threads,
            isa,
        } = options;
        let mut team = Team::new(threads).map_err(|error| {
            CheckpointError::invalid(&checkpoint.origin, "threads", threads, error)
        })?;
        let form = match dtype {
            Dtype::F32 => Form::F32,
            Dtype::Bf16 => Form::Bf16,
            Dtype::Int8 => Form::Int8,
            Dtype::F16 => {
                let expected = "f32, bf16 or int8";
                return Err(CheckpointError::invalid(
                    &checkpoint.origin,
                    "dtype",
                    expected,
                    "f16",
                ));
            }
        };
        if form == Form::Int8 {
            let config = &checkpoint.config;
            for (key, size) in [
                ("hidden_size", config.hidden_size),
                ("intermediate_size", config.intermediate_size),
            ] {
                if size > INT8_INPUTS_MAX {
                    let expected = format!("at most {INT8_INPUTS_MAX} for int8");
                    let origin = &checkpoint.origin;
                    return Err(CheckpointError::invalid(origin, key, expected, size));
                }
            }
        }
        let bert = Bert::load(checkpoint, (Isa::up_to(isa), form), &mut team)?;
        let alone = |_| {
            Mutex::new(Alone {
                team: Team::solo(),
                scratch: Scratch::new(&bert, 1),
                sequences: 0..0,
                logits: Vec::new(),
            })
        };
        Ok(Self {
            shared: Scratch::new(&bert, threads.get()),
            alone: (0..threads.get()).map(alone).collect(),
            bert,
            team,
            done: VecDeque::new(),
        })
    }

    fn compute(&mut self, batch: &RaggedBatch) -> Logits {
        let labels = self.bert.labels();
        let mut logits = vec![0.0; batch.sequences() * labels];
        let threads = self.team.threads();
        let work = batch.tokens() * self.bert.multiply_adds_per_token();
        let whole = 0..batch.sequences();
        if threads == 1 || work < threads * MULTIPLY_ADDS_PER_THREAD {
            let sequences = whole;
            let part = Part { batch, sequences };
            let alone = self.alone[0]
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            let Alone { team, scratch, .. } = alone;
            self.bert.forward(&part, team, scratch, &mut logits);
        } else if batch.sequences() >= threads
            && self.bert.weight_bytes() <= batch.tokens() * WEIGHT_BYTES_PER_TOKEN
        {
            self.by_sequence(batch, &mut logits);
        } else {
            let sequences = whole;
            let part = Part { batch, sequences };
            self.bert
                .forward(&part, &mut self.team, &mut self.shared, &mut logits);
        }
        Logits::new(logits, labels)
    }

    /// Each thread computes some of the sequences.
    fn by_sequence(&mut self, batch: &RaggedBatch, logits: &mut [f32]) {
        let labels = self.bert.labels();
        let runs = split(batch, self.alone.len());
        for (alone, sequences) in self.alone.iter_mut().zip(&runs) {
            let alone = alone.get_mut().unwrap_or_else(PoisonError::into_inner);
            alone.sequences = sequences.clone();
            alone.logits.resize(sequences.len() * labels, 0.0);
        }
        let (bert, alone) = (&self.bert, &self.alone[..runs.len()]);
        self.team.share(runs.len(), 1, &|_, range| {
            for alone in &alone[range] {
                let mut alone = alone.lock().unwrap_or_else(PoisonError::into_inner);
                let Alone {
                    team,
                    scratch,
                    sequences,
                    logits,
                } = &mut *alone;
                let sequences = sequences.clone();
                bert.forward(&Part { batch, sequences }, team, scratch, logits);
            }
        });
        for alone in &mut self.alone[..runs.len()] {
            let alone = alone.get_mut().unwrap_or_else(PoisonError::into_inner);
            let place = alone.sequences.start * labels..alone.sequences.end * labels;
            logits[place].copy_from_slice(&alone.logits);
        }
    }
}

impl Engine for Cpu {
    fn computes_alone(&self) -> bool {
        self.team.threads() == 1
    }

    fn dtype(&self) -> &'static str {
        match self.bert.form {
            Form::F32 => "float32",
            Form::Bf16 => "bfloat16",
            Form::Int8 => "int8",
        }
    }

    fn description(&self) -> String {
        let threads = self.team.threads();
        let form = match self.bert.form {
            Form::F32 => "f32",
            Form::Bf16 => "bf16 weights",
            Form::Int8 => "int8",
        };
        format!(
            "cpu {form}, {}, {threads} thread{}",
            self.bert.isa,
            if threads == 1 { "" } else { "s" }
        )
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let logits = self.compute(batch);
        self.done.push_back(logits);
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.done
            .pop_front()
            .ok_or_else(|| EngineError::Batch("nothing was submitted".to_owned()))
    }
}

/// Consecutive runs of sequences with about the same number of tokens each; at most `parts`,
/// none empty.
fn split(batch: &RaggedBatch, parts: usize) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut tokens) = (Vec::with_capacity(parts), 0, 0);
    for (index, range) in batch.ranges().enumerate() {
        tokens += range.len();
        if tokens * parts >= batch.tokens() * (runs.len() + 1) {
            runs.push(start..index + 1);
            start = index + 1;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_covers_every_sequence_once() {
        for lengths in [
            vec![1; 7],
            vec![500, 1, 1, 1],
            vec![1, 1, 1, 500],
            vec![3, 9, 2, 40, 8, 8],
        ] {
            let mut batch = RaggedBatch::new();
            for length in &lengths {
                batch.push(&vec![0; *length], &vec![0; *length]);
            }
            for parts in 1..5 {
                let runs = split(&batch, parts);
                assert!(runs.len() <= parts);
                let all: Vec<usize> = runs
                    .into_iter()
                    .flat_map(|run| {
                        assert!(!run.is_empty());
                        run
                    })
                    .collect();
                assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            }
        }
    }
}
