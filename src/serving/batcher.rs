//! The engine's thread: batches out of the queue, through the engine, into the replies.
//!
//! Work-conserving and late-bound: whenever the engine can take a batch it takes everything that
//! waits, within the limits, and nothing is put together before that. Under load batches grow by
//! themselves; on an idle server a text waits for nothing (Inoue 2021, arXiv:1912.06322).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::time::Instant;

use super::queue::{Queue, Waiting, Work};
use crate::engine::{Engine, EngineError, Logits, RaggedBatch};
use crate::error::Refusal;
use crate::metrics::Metrics;

/// How large a batch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Tokens in a batch; a single longer text still makes a batch of its own.
    pub tokens_max: usize,
    /// Texts in a batch.
    pub texts_max: usize,
}

/// How many of the waiting texts, given by their lengths in tokens, go into the next batch.
///
/// First come, first served: a text that does not fit ends the batch, so that a long one cannot
/// be overtaken for ever.
pub(crate) fn plan(lengths: impl Iterator<Item = usize>, limits: BatchLimits) -> usize {
    let mut tokens = 0;
    let mut count = 0;
    for length in lengths.take(limits.texts_max.max(1)) {
        tokens += length;
        if count > 0 && tokens > limits.tokens_max {
            break;
        }
        count += 1;
    }
    count
}

/// A batch under way: who waits for it and since when.
struct UnderWay {
    entries: Vec<Waiting>,
    since: Instant,
}

/// The loop of the engine's thread.
pub(crate) struct Batcher {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) limits: BatchLimits,
    pub(crate) metrics: Metrics,
}

impl Batcher {
    /// Runs until the queue is closed and empty, or the engine is lost.
    ///
    /// Every entry taken from the queue is answered, whatever happens.
    ///
    /// # Errors
    /// [`EngineError::Lost`]; what was under way and waiting has then been refused.
    pub(crate) fn run(mut self) -> Result<(), EngineError> {
        let mut under_way: VecDeque<UnderWay> = VecDeque::new();
        let mut batch = RaggedBatch::new();
        loop {
            // After a panic with another batch under way nobody knows which is the oldest.
            let panicked = |alone: bool| {
                if alone {
                    EngineError::Batch
                } else {
                    EngineError::Lost
                }
            };
            if under_way.len() < self.engine.depth().max(1) {
                match self.queue.take(self.limits, under_way.is_empty()) {
                    Work::Batch(entries) => {
                        let since = self.started(&entries);
                        let submit = || {
                            batch.clear();
                            for entry in &entries {
                                batch.push(&entry.encoded.ids, &entry.encoded.type_ids);
                            }
                            self.engine.submit(&batch)
                        };
                        match guarded(submit, panicked(under_way.is_empty())) {
                            Ok(()) => under_way.push_back(UnderWay { entries, since }),
                            Err(error) => self.failed(error, entries, &mut under_way)?,
                        }
                        continue;
                    }
                    Work::Closed if under_way.is_empty() => return Ok(()),
                    Work::Closed | Work::None => {}
                }
            }
            let Some(UnderWay { entries, since }) = under_way.pop_front() else {
                continue;
            };
            match guarded(|| self.engine.collect(), panicked(under_way.is_empty())) {
                Ok(logits) if logits.rows().len() == entries.len() => {
                    self.answer(entries, since, &logits);
                }
                Ok(_) => {
                    let what = "it answered another batch than the oldest".to_owned();
                    self.failed(EngineError::Lost(what), entries, &mut under_way)?;
                }
                Err(error) => self.failed(error, entries, &mut under_way)?,
            }
        }
    }

    fn started(&self, entries: &[Waiting]) -> Instant {
        let now = Instant::now();
        let tokens: usize = entries.iter().map(|entry| entry.encoded.ids.len()).sum();
        self.metrics.batch_size.observe(entries.len() as f64);
        self.metrics.batch_tokens.observe(tokens as f64);
        for entry in entries {
            self.metrics
                .queue_seconds
                .observe((now - entry.since).as_secs_f64());
        }
        now
    }

    fn answer(&self, entries: Vec<Waiting>, since: Instant, logits: &Logits) {
        self.metrics
            .compute_seconds
            .observe(since.elapsed().as_secs_f64());
        for (entry, row) in entries.into_iter().zip(logits.rows()) {
            let finite = row.iter().all(|logit| logit.is_finite());
            let not_finite = || Refusal::Engine("its answer is not a finite number".to_owned());
            let answer = if finite {
                Ok(row.to_vec())
            } else {
                Err(not_finite())
            };
            // A client that has left meanwhile is no error; its request counts as abandoned.
            let _ = entry.reply.send(answer);
        }
    }

    /// Answers the entries of a failed batch; a lost engine takes everything else with it.
    fn failed(
        &self,
        error: EngineError,
        entries: Vec<Waiting>,
        under_way: &mut VecDeque<UnderWay>,
    ) -> Result<(), EngineError> {
        self.metrics.engine_failures.inc();
        let refuse = |entries: Vec<Waiting>, refusal: &Refusal| {
            for entry in entries {
                let _ = entry.reply.send(Err(refusal.clone()));
            }
        };
        match &error {
            EngineError::Batch(_) | EngineError::OutOfMemory { .. } => {
                tracing::error!(texts = entries.len(), %error, "batch failed");
                refuse(entries, &Refusal::Engine(error.to_string()));
                Ok(())
            }
            EngineError::Lost(_) => {
                refuse(entries, &Refusal::Unhealthy);
                for batch in under_way.drain(..) {
                    refuse(batch.entries, &Refusal::Unhealthy);
                }
                refuse(self.queue.close_and_clear(), &Refusal::Unhealthy);
                Err(error)
            }
        }
    }
}

/// Turns a panic of the engine into an error.
fn guarded<T>(
    call: impl FnOnce() -> Result<T, EngineError>,
    panicked: fn(String) -> EngineError,
) -> Result<T, EngineError> {
    // The engines keep only buffers between calls, and overwrite them whole in the next one. What
    // the panic says goes to the log by the panic hook; it is nothing for clients.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(panicked("it panicked".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_what_fits_and_at_least_one() {
        let limits = BatchLimits {
            tokens_max: 10,
            texts_max: 3,
        };
        let plan = |lengths: &[usize]| plan(lengths.iter().copied(), limits);
        assert_eq!(plan(&[]), 0);
        assert_eq!(plan(&[4, 4, 4]), 2);
        assert_eq!(plan(&[4, 4, 2]), 3);
        assert_eq!(plan(&[1, 1, 1, 1]), 3);
        assert_eq!(
            plan(&[11, 1]),
            1,
            "a text larger than a batch makes one of its own"
        );
        assert_eq!(plan(&[1, 11, 1]), 1, "nobody overtakes a long text");
    }
}
