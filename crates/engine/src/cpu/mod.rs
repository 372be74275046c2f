//! The CPU engine: our own forward pass over ragged batches.
//!
//! Weights are packed into panels once at load. Projections run on all tokens of a batch at once,
//! attention on each sequence separately. Nothing is computed for padding. The last layer
//! computes only what the `[CLS]` rows need, because only they feed the classifier.
//!
//! A small batch runs on one thread. A larger batch is divided in one of two ways. Either the threads share each
//! step (the columns of products, the rows of the steps between them), so that each weight is
//! read once. Or, if the weights fit the cache, each thread takes some sequences and runs without waiting for the
//! others.

mod forward;
mod load;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use intentd_base::threads::{EngineThread, ThreadId};
use intentd_kernels::cpu::{Form, INT8_INPUTS_MAX, Isa, IsaLimit, Team};

use self::forward::{BatchSlice, PackedModel, Workspace};
use super::batch::{Logits, RaggedBatch};
use super::error::EngineError;
use super::interface::Engine;
use super::options::Dtype;
use intentd_model::{Checkpoint, CheckpointError};

/// Batches with fewer multiply-adds per thread run on the engine's own thread, because waking
/// another thread costs tens of microseconds.
const MULTIPLY_ADDS_PER_THREAD: usize = 2 << 20;

/// A batch is divided by sequence if it has at least one token for this many bytes of weights. With fewer tokens,
/// reading all weights on every thread costs more than it saves in waits between steps.
/// Measured on two cores with models of 0.4 to 340 MB, the break-even lies at 17 to 40 KB.
const WEIGHT_BYTES_PER_TOKEN: usize = 24 << 10;

/// Settings of a [`Cpu`] engine.
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// f32, bf16 (weights only) or int8.
    pub dtype: Dtype,
    /// Threads that compute, including the caller's.
    pub threads: NonZeroUsize,
    /// The largest instruction set to use.
    pub isa: IsaLimit,
}

impl CpuOptions {
    /// f32, with the best instruction set of this machine.
    pub fn f32(threads: NonZeroUsize) -> Self {
        Self {
            dtype: Dtype::F32,
            threads,
            isa: IsaLimit::Avx512,
        }
    }
}

/// The CPU engine.
#[derive(Debug)]
pub struct Cpu {
    model: PackedModel,
    team: Team,
    /// For batches whose steps the team shares.
    shared: Workspace,
    /// One per thread, for batches divided by sequence.
    workers: Vec<Mutex<Worker>>,
    done: VecDeque<Logits>,
}

/// The state of a thread that runs a forward pass of its own.
#[derive(Debug)]
struct Worker {
    team: Team,
    workspace: Workspace,
    /// The sequences it computes, and their logits.
    sequences: Range<usize>,
    logits: Vec<f32>,
}

impl Cpu {
    /// Packs the weights for the instruction set of this machine.
    ///
    /// # Errors
    /// When a tensor cannot be read, the CPU does not support the type, or the operating system
    /// refuses to start a thread.
    pub fn load(checkpoint: &Checkpoint, options: CpuOptions) -> Result<Self, CheckpointError> {
        let CpuOptions {
            dtype,
            threads,
            isa,
        } = options;
        // The team packs the weights as well as it computes batches.
        let leader = ThreadId::current();
        let mut team = Team::new(threads, move || EngineThread::help(leader)).map_err(|error| {
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
            check_int8(checkpoint)?;
        }
        let model = PackedModel::load(checkpoint, Isa::up_to(isa), form, &mut team)?;
        let worker = |_| {
            Mutex::new(Worker {
                team: Team::solo(),
                workspace: Workspace::new(&model, 1),
                sequences: 0..0,
                logits: Vec::new(),
            })
        };
        Ok(Self {
            shared: Workspace::new(&model, threads.get()),
            workers: (0..threads.get()).map(worker).collect(),
            model,
            team,
            done: VecDeque::new(),
        })
    }

    fn compute(&mut self, batch: &RaggedBatch) -> Logits {
        let labels = self.model.labels();
        let mut logits = vec![0.0; batch.sequences() * labels];
        let threads = self.team.threads();
        let work = batch.tokens() * self.model.multiply_adds_per_token();
        let sequences = 0..batch.sequences();
        let whole = BatchSlice { batch, sequences };
        if threads == 1 || work < threads * MULTIPLY_ADDS_PER_THREAD {
            let worker = self.workers[0]
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            let Worker {
                team, workspace, ..
            } = worker;
            self.model.forward(&whole, team, workspace, &mut logits);
        } else if batch.sequences() >= threads
            && self.model.weight_bytes() <= batch.tokens() * WEIGHT_BYTES_PER_TOKEN
        {
            self.by_sequence(batch, &mut logits);
        } else {
            self.model
                .forward(&whole, &mut self.team, &mut self.shared, &mut logits);
        }
        Logits::new(logits, labels)
    }

    /// Runs a batch with the sequences divided between the threads.
    fn by_sequence(&mut self, batch: &RaggedBatch, logits: &mut [f32]) {
        let labels = self.model.labels();
        let runs = split(batch, self.workers.len());
        for (worker, sequences) in self.workers.iter_mut().zip(&runs) {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.sequences = sequences.clone();
            worker.logits.resize(sequences.len() * labels, 0.0);
        }
        let (model, workers) = (&self.model, &self.workers[..runs.len()]);
        self.team.share(runs.len(), 1, &|_, range| {
            for worker in &workers[range] {
                let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                let Worker {
                    team,
                    workspace,
                    sequences,
                    logits,
                } = &mut *worker;
                let sequences = sequences.clone();
                model.forward(&BatchSlice { batch, sequences }, team, workspace, logits);
            }
        });
        for worker in &mut self.workers[..runs.len()] {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            let rows = worker.sequences.start * labels..worker.sequences.end * labels;
            logits[rows].copy_from_slice(&worker.logits);
        }
    }
}

/// Refuses products that are too long for exact sums of int8.
fn check_int8(checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let config = &checkpoint.config;
    let keys = &config.family.keys;
    for (key, size) in [
        (keys.hidden_size.name, config.hidden_size),
        (keys.intermediate_size.name, config.intermediate_size),
    ] {
        if size > INT8_INPUTS_MAX {
            let expected = format!("at most {INT8_INPUTS_MAX} for int8");
            let origin = &checkpoint.origin;
            return Err(CheckpointError::invalid(origin, key, expected, size));
        }
    }
    Ok(())
}

impl Engine for Cpu {
    fn computes_alone(&self) -> bool {
        self.team.threads() == 1
    }

    fn dtype(&self) -> &'static str {
        match self.model.form {
            Form::F32 => "float32",
            Form::Bf16 => "bfloat16",
            Form::Int8 => "int8",
        }
    }

    fn description(&self) -> String {
        let threads = self.team.threads();
        let form = match self.model.form {
            Form::F32 => "f32",
            Form::Bf16 => "bf16 weights",
            Form::Int8 => "int8",
        };
        format!(
            "cpu {form}, {}, {threads} thread{}",
            self.model.isa,
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

/// Divides a batch into at most `parts` non-empty runs of consecutive sequences with about the same number of tokens
/// each.
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
