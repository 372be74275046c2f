//! The engine's thread: batches out of the queue, through the engine, into the replies.
//!
//! Work-conserving and late-bound: whenever the engine can take a batch it takes everything that
//! waits, within the limits, and nothing is put together before that. Under load batches grow by
//! themselves; on an idle server a text waits for nothing (Inoue 2021, arXiv:1912.06322). An engine
//! that takes a second batch while it runs one gets it shortly before it needs it ([`Pace`]).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;
use super::queue::{Queue, Waiting, Work};
use super::watchdog::Progress;
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
    tokens: usize,
    since: Instant,
}

/// The loop of the engine's thread.
pub(crate) struct Batcher {
    engine: Box<dyn Engine>,
    queue: Arc<Queue>,
    limits: BatchLimits,
    metrics: Metrics,
    progress: Arc<Progress>,
    pace: Pace,
    /// Submitted, oldest first.
    under_way: VecDeque<UnderWay>,
    /// Parts of batches that the device had no memory for; they come before the queue.
    parts: VecDeque<Vec<Waiting>>,
    /// When the device was last seen to be done with a batch.
    done: Instant,
    /// What the engine's device clock showed last.
    device_time: Duration,
}

impl Batcher {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        queue: Arc<Queue>,
        limits: BatchLimits,
        metrics: Metrics,
        progress: Arc<Progress>,
    ) -> Self {
        let limits = engine.largest().map_or(limits, |largest| BatchLimits {
            tokens_max: limits.tokens_max.min(largest.tokens),
            texts_max: limits.texts_max.min(largest.sequences),
        });
        Self {
            device_time: engine.device_time().unwrap_or_default(),
            engine,
            queue,
            limits,
            metrics,
            progress,
            pace: Pace::new(),
            under_way: VecDeque::new(),
            parts: VecDeque::new(),
            done: Instant::now(),
        }
    }

    /// Runs until the queue is closed and empty, or the engine is lost.
    ///
    /// Every entry taken from the queue is answered, whatever happens.
    ///
    /// # Errors
    /// [`EngineError::Lost`]; what was under way and waiting has then been refused.
    pub(crate) fn run(&mut self) -> Result<(), EngineError> {
        let mut batch = RaggedBatch::new();
        loop {
            if self.under_way.len() < self.engine.depth().max(1) {
                let done = match self.await_turn() {
                    Ok(done) => done,
                    Err(error) => return self.failed(error, Vec::new()),
                };
                match self.next() {
                    Work::Batch(entries) => {
                        self.submit(entries, &mut batch)?;
                        continue;
                    }
                    Work::Closed if self.under_way.is_empty() => return Ok(()),
                    // Those who waited have left; others may come while the batch still runs.
                    Work::None if !done => continue,
                    Work::Closed | Work::None => {}
                }
            }
            self.collect()?;
        }
    }

    /// While a batch is under way: waits until it is done (true), or until it is time for the next.
    fn await_turn(&mut self) -> Result<bool, EngineError> {
        let Some(running) = self.under_way.front() else {
            return Ok(true);
        };
        let start = running.since.max(self.done);
        let due = self.pace.next_at(start, running.tokens);
        loop {
            let engine = &mut self.engine;
            // A panic here leaves a batch of which nobody knows how far it is.
            match guarded(|| engine.is_done(), EngineError::Lost) {
                Ok(false) => {}
                Err(error @ EngineError::Lost(_)) => return Err(error),
                // What is wrong with the batch, its collection says.
                Ok(true) | Err(_) => return Ok(true),
            }
            let standing = self.queue.standing();
            // Waiting with a full batch wins nothing: what comes later does not get in.
            let ripe = standing.fills(self.limits) || !self.parts.is_empty();
            let now = Instant::now();
            if ripe || (standing.texts > 0 && now >= due) {
                return Ok(false);
            }
            match Pace::nap(now - start) {
                Duration::ZERO => std::thread::yield_now(),
                nap => std::thread::sleep(nap),
            }
        }
    }

    /// The next texts for the engine. Blocks only while nothing is under way.
    fn next(&mut self) -> Work {
        if let Some(part) = self.parts.pop_front() {
            return Work::Batch(part);
        }
        let idle = self.under_way.is_empty();
        if idle {
            self.progress.idle();
        }
        let work = self.queue.take(self.limits, idle);
        if idle {
            // The clock starts; with a batch under way, texts that come and go are no progress.
            self.made_progress();
        }
        if let Work::Batch(entries) = &work {
            let now = Instant::now();
            for entry in entries {
                let waited = now - entry.since;
                self.metrics.queue_seconds.observe(waited.as_secs_f64());
            }
        }
        work
    }

    /// For the watchdog, which watches devices only.
    fn made_progress(&self) {
        if self.engine.is_on_device() {
            self.progress.made();
        }
    }

    fn submit(
        &mut self,
        entries: Vec<Waiting>,
        batch: &mut RaggedBatch,
    ) -> Result<(), EngineError> {
        let since = Instant::now();
        let panicked = self.panicked();
        let engine = &mut self.engine;
        let submit = || {
            batch.clear();
            for entry in &entries {
                batch.push(&entry.encoded.ids, &entry.encoded.type_ids);
            }
            engine.submit(batch)
        };
        let submitted = guarded(submit, panicked);
        self.made_progress();
        if let Err(error) = submitted {
            return self.failed(error, entries);
        }
        if self.engine.depth() > 1 {
            self.pace.submitted(since.elapsed());
        }
        let tokens = batch.tokens();
        self.metrics.batch_size.observe(entries.len() as f64);
        self.metrics.batch_tokens.observe(tokens as f64);
        self.under_way.push_back(UnderWay {
            entries,
            tokens,
            since,
        });
        Ok(())
    }

    /// Answers the oldest batch under way, if any.
    fn collect(&mut self) -> Result<(), EngineError> {
        let Some(UnderWay {
            entries,
            tokens,
            since,
        }) = self.under_way.pop_front()
        else {
            return Ok(());
        };
        let panicked = self.panicked();
        let engine = &mut self.engine;
        let collected = guarded(|| engine.collect(), panicked);
        self.made_progress();
        let logits = match collected {
            Ok(logits) if logits.rows().len() == entries.len() => logits,
            Ok(_) => {
                let what = "it answered another batch than the oldest".to_owned();
                return self.failed(EngineError::Lost(what), entries);
            }
            Err(error) => return self.failed(error, entries),
        };
        let done = Instant::now();
        let took = done - since.max(self.done);
        self.done = done;
        self.pace.done(tokens, took);
        let device = self.engine.device_time().map(|total| {
            let before = std::mem::replace(&mut self.device_time, total);
            total.saturating_sub(before)
        });
        self.metrics
            .engine_busy
            .inc_by(device.unwrap_or(took).as_secs_f64());
        self.answer(entries, since, &logits);
        let engine = &mut self.engine;
        let kept_up = guarded(|| engine.upkeep(), EngineError::Lost);
        self.made_progress();
        kept_up.or_else(|error| self.failed(error, Vec::new()))
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

    /// Splits a batch that was too large for the device, answers the entries of one that failed
    /// otherwise; a lost engine takes everything else with it.
    fn failed(&mut self, error: EngineError, mut entries: Vec<Waiting>) -> Result<(), EngineError> {
        let refuse = |entries: Vec<Waiting>, refusal: &Refusal| {
            for entry in entries {
                let _ = entry.reply.send(Err(refusal.clone()));
            }
        };
        if matches!(error, EngineError::OutOfMemory { .. }) && entries.len() > 1 {
            tracing::warn!(texts = entries.len(), %error, "splitting a batch");
            let second = entries.split_off(entries.len() / 2);
            self.parts.push_front(second);
            self.parts.push_front(entries);
            return Ok(());
        }
        self.metrics.engine_failures.inc();
        match &error {
            EngineError::Batch(_) => {
                tracing::error!(texts = entries.len(), %error, "batch failed");
                refuse(entries, &Refusal::Engine(error.to_string()));
                Ok(())
            }
            EngineError::OutOfMemory { .. } => {
                tracing::error!(%error, "a single text failed");
                refuse(entries, &Refusal::OutOfMemory);
                Ok(())
            }
            EngineError::Lost(_) => {
                refuse(entries, &Refusal::Unhealthy);
                for batch in self.under_way.drain(..) {
                    refuse(batch.entries, &Refusal::Unhealthy);
                }
                for part in self.parts.drain(..) {
                    refuse(part, &Refusal::Unhealthy);
                }
                refuse(self.queue.close_and_clear(), &Refusal::Unhealthy);
                Err(error)
            }
        }
    }

    /// What a panic means: with another batch under way nobody knows which is the oldest.
    fn panicked(&self) -> fn(String) -> EngineError {
        if self.under_way.is_empty() {
            EngineError::Batch
        } else {
            EngineError::Lost
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
