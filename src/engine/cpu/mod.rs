//! The CPU engine: our own BERT forward pass over ragged batches, in f32.
//!
//! Weights are cut into panels once at load. Linear layers run on all tokens of a batch at once,
//! attention on each sequence by itself; nothing is computed for padding, and the last layer
//! computes only what the `[CLS]` rows need, since only they feed the classifier. A batch with
//! at least as many sequences as threads is split by sequence, each part running on its own; a
//! smaller one shares out the columns of each product.

mod attention;
mod elementwise;
mod forward;
mod linear;
mod product;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;

use rayon::prelude::*;

use self::forward::{Bert, Part, Scratch};
use super::{Engine, EngineError, Logits, RaggedBatch};
use crate::model::{Checkpoint, CheckpointError};

/// Batches of fewer multiply-adds than this a thread run on the engine's own thread: waking
/// another costs tens of microseconds.
const MULTIPLY_ADDS_PER_THREAD: usize = 2 << 20;

/// Our own BERT forward pass for the CPU.
#[derive(Debug)]
pub struct Cpu {
    bert: Bert,
    pool: rayon::ThreadPool,
    scratch: Vec<Scratch>,
    done: VecDeque<Logits>,
}

impl Cpu {
    /// Prepares the weights for this machine's vector width.
    ///
    /// # Errors
    /// When a tensor cannot be read, or the operating system gives no threads.
    pub fn load(checkpoint: &Checkpoint, threads: NonZeroUsize) -> Result<Self, CheckpointError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|index| format!("engine-cpu-{index}"))
            .build()
            .map_err(|error| {
                CheckpointError::invalid(&checkpoint.origin, "threads", threads, error)
            })?;
        let scratch = (0..threads.get()).map(|_| Scratch::default()).collect();
        Ok(Self {
            bert: Bert::load(checkpoint)?,
            pool,
            scratch,
            done: VecDeque::new(),
        })
    }

    fn compute(&mut self, batch: &RaggedBatch) -> Logits {
        let labels = self.bert.labels();
        let mut logits = vec![0.0; batch.sequences() * labels];
        let threads = self.pool.current_num_threads();
        let bert = &self.bert;
        let work = batch.tokens() * bert.multiply_adds_per_token();
        let whole = Part {
            batch,
            sequences: 0..batch.sequences(),
        };
        if threads == 1 || work < threads * MULTIPLY_ADDS_PER_THREAD {
            bert.forward(&whole, false, &mut self.scratch[0], &mut logits);
        } else if batch.sequences() < threads {
            let scratch = &mut self.scratch[0];
            self.pool
                .install(|| bert.forward(&whole, true, scratch, &mut logits));
        } else {
            let mut rest = logits.as_mut_slice();
            let mut parts = Vec::with_capacity(threads);
            for (sequences, scratch) in split(batch, threads).into_iter().zip(&mut self.scratch) {
                let (part, tail) = rest.split_at_mut(sequences.len() * labels);
                rest = tail;
                parts.push((Part { batch, sequences }, scratch, part));
            }
            self.pool.install(|| {
                parts.into_par_iter().for_each(|(part, scratch, logits)| {
                    bert.forward(&part, false, scratch, logits)
                });
            });
        }
        Logits::new(logits, labels)
    }
}

impl Engine for Cpu {
    fn description(&self) -> String {
        let threads = self.pool.current_num_threads();
        format!(
            "cpu f32, {threads} thread{}",
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
