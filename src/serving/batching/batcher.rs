//! The engine's thread: batches out of the queue, through the engine, into the replies.
//!
//! Work-conserving and late-bound (Inoue 2021, arXiv:1912.06322): when the engine can take a batch, it takes everything
//! that waits, within the limits. An engine that runs ahead gets its next batch shortly before it needs it ([`Pace`]).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batch;
use super::pipeline::Pipeline;
use crate::engine::{Engine, EngineError, Logits, RaggedBatch};
use crate::error::Refusal;
use crate::log_throttle::LogThrottle;
use crate::metrics::Metrics;
use crate::serving::queue::{Answered, BatchLimits, Patience, Waiting, Work};
use crate::serving::timing::{Pace, thread_time};

/// How often an engine that fails again and again is tried while no request comes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A batch under way: who waits for it and since when.
struct UnderWay {
    batch: Batch,
    tokens: usize,
    since: Instant,
    /// CPU time of this thread before it.
    thread: Option<Duration>,
}

/// The loop of the engine's thread.
pub(crate) struct Batcher {
    engine: Box<dyn Engine>,
    pipeline: Arc<Pipeline>,
    texts_max: usize,
    metrics: Metrics,
    pace: Pace,
    /// Submitted, oldest first.
    under_way: VecDeque<UnderWay>,
    /// Halves of batches that failed or that the device had no memory for. They go before the queue.
    split: VecDeque<Batch>,
    /// When the device was last seen to be done with a batch.
    done: Instant,
    /// What the engine's device clock showed last.
    device_time: Duration,
    /// A batch of our own, by which a failing engine shows that it is well again.
    probe: RaggedBatch,
}

impl Batcher {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        pipeline: Arc<Pipeline>,
        texts_max: usize,
        metrics: Metrics,
        probe: RaggedBatch,
    ) -> Self {
        let texts_max = engine.largest().map_or(texts_max, |largest| {
            pipeline.timing.limit_batch(largest.tokens);
            texts_max.min(largest.sequences)
        });
        Self {
            device_time: engine.device_time().unwrap_or_default(),
            engine,
            pipeline,
            texts_max,
            metrics,
            pace: Pace::new(),
            under_way: VecDeque::new(),
            split: VecDeque::new(),
            done: Instant::now(),
            probe,
        }
    }

    /// How large the next batch may be: no larger than the objective leaves time for.
    fn limits(&self) -> BatchLimits {
        BatchLimits {
            tokens_max: self.pipeline.timing.batch_tokens(),
            texts_max: self.texts_max,
        }
    }

    /// Runs until the queue is closed and empty, or the engine is lost.
    ///
    /// Every entry taken from the queue is answered, whatever happens.
    ///
    /// # Errors
    /// [`EngineError::Lost`]; what was under way and waiting has then been refused.
    pub(crate) fn run(&mut self) -> Result<(), EngineError> {
        let mut ragged = RaggedBatch::new();
        loop {
            if self.under_way.len() < self.engine.depth().max(1) {
                let done = match self.await_turn() {
                    Ok(done) => done,
                    Err(error) => return self.failed(error, Batch::new(Vec::new())),
                };
                match self.next() {
                    Next::Batch(batch) => {
                        self.submit(batch, &mut ragged)?;
                        continue;
                    }
                    Next::Probe => {
                        self.probe()?;
                        continue;
                    }
                    Next::Closed if self.under_way.is_empty() => return Ok(()),
                    // Those who waited have left; others may come while the batch still runs.
                    Next::None if !done => continue,
                    Next::Closed | Next::None => {}
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
            let standing = self.pipeline.queue.standing();
            // Waiting with a full batch wins nothing: what comes later does not get in.
            let ripe = standing.fills(self.limits()) || !self.split.is_empty();
            let now = Instant::now();
            if ripe || (standing.texts > 0 && now >= due) {
                return Ok(false);
            }
            match self.pace.nap(running.tokens, now - start) {
                Duration::ZERO => std::thread::yield_now(),
                nap => std::thread::sleep(nap),
            }
        }
    }

    /// The next texts for the engine. Blocks only while nothing is under way.
    fn next(&mut self) -> Next {
        if let Some(batch) = self.split.pop_front() {
            return Next::Batch(batch);
        }
        let idle = self.under_way.is_empty();
        if idle {
            self.pipeline.timing.busy.clear();
            self.pipeline.progress.idle();
        }
        let failing = self.pipeline.health.is_failing();
        let patience = match (idle, failing) {
            (false, _) => Patience::None,
            (true, false) => Patience::Endless,
            (true, true) => Patience::Limited(PROBE_INTERVAL),
        };
        let work = self.pipeline.queue.take(self.limits(), patience);
        if idle {
            // The clock starts; with a batch under way, texts that come and go are no progress.
            self.pipeline.progress.made();
        }
        match work {
            Work::Batch(entries) => {
                let now = Instant::now();
                for entry in &entries {
                    let waited = now - entry.since;
                    self.metrics.queue_seconds.observe(waited.as_secs_f64());
                }
                Next::Batch(Batch::new(entries))
            }
            Work::None if idle && failing => Next::Probe,
            Work::None => Next::None,
            Work::Closed => Next::Closed,
        }
    }

    /// Begins the forecast of what runs anew, with what is under way.
    fn count_busy(&self) {
        let timing = &self.pipeline.timing;
        if self.under_way.is_empty() {
            return timing.busy.clear();
        }
        let line = timing.curve.line();
        let seconds = |batch: &UnderWay| line.seconds(1.0, batch.tokens as f64);
        let left = self.under_way.iter().map(seconds).sum();
        timing.busy.restart(Instant::now(), left);
    }

    /// Asks a failing engine for an answer that nobody waits for.
    fn probe(&mut self) -> Result<(), EngineError> {
        let (engine, probe) = (&mut self.engine, &self.probe);
        match guarded(|| engine.forward(probe), EngineError::Batch) {
            Ok(logits) if logits.rows().all(is_finite) => {
                self.pipeline.health.succeeded();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error @ EngineError::Lost(_)) => self.failed(error, Batch::new(Vec::new())),
            Err(error) => {
                tracing::warn!(%error, "the engine still fails");
                Ok(())
            }
        }
    }

    fn submit(&mut self, batch: Batch, ragged: &mut RaggedBatch) -> Result<(), EngineError> {
        let since = Instant::now();
        let thread = thread_time(&*self.engine);
        let panicked = self.panicked();
        let tokens = batch
            .entries
            .iter()
            .map(|entry| entry.encoded.ids.len())
            .sum();
        let timing = &self.pipeline.timing;
        timing
            .busy
            .add(since, timing.curve.line().seconds(1.0, tokens as f64));
        let engine = &mut self.engine;
        let submit = || {
            ragged.clear();
            for entry in &batch.entries {
                ragged.push(&entry.encoded.ids, &entry.encoded.type_ids);
            }
            engine.submit(ragged)
        };
        let submitted = guarded(submit, panicked);
        self.pipeline.progress.made();
        if let Err(error) = submitted {
            return self.failed(error, batch);
        }
        if self.engine.depth() > 1 {
            self.pace.submitted(since.elapsed());
        }
        self.metrics.batch_size.observe(batch.entries.len() as f64);
        self.metrics.batch_tokens.observe(tokens as f64);
        self.under_way.push_back(UnderWay {
            batch,
            tokens,
            since,
            thread,
        });
        Ok(())
    }

    /// Answers the oldest batch under way, if any.
    fn collect(&mut self) -> Result<(), EngineError> {
        let Some(UnderWay {
            batch,
            tokens,
            since,
            thread,
        }) = self.under_way.pop_front()
        else {
            return Ok(());
        };
        let panicked = self.panicked();
        let engine = &mut self.engine;
        let collected = guarded(|| engine.collect(), panicked);
        self.pipeline.progress.made();
        let logits = match collected {
            Ok(logits) if logits.rows().len() == batch.entries.len() => logits,
            Ok(_) => {
                let what = "it answered another batch than the oldest".to_owned();
                return self.failed(EngineError::Lost(what), batch);
            }
            Err(error) => return self.failed(error, batch),
        };
        if logits.rows().any(is_finite) {
            self.pipeline.health.succeeded();
        } else {
            self.pipeline.health.failed();
        }
        let done = Instant::now();
        let took = done - since.max(self.done);
        self.done = done;
        self.pace.done(tokens, took);
        self.pipeline.timing.curve.observe(tokens, took);
        let ran = thread_time(&*self.engine).zip(thread);
        let ran = ran.map(|(after, before)| after.saturating_sub(before));
        self.pipeline.timing.effort.observe(tokens, took, ran);
        self.count_busy();
        let device = self.engine.device_time().map(|total| {
            let before = std::mem::replace(&mut self.device_time, total);
            total.saturating_sub(before)
        });
        self.metrics
            .engine_busy
            .inc_by(device.unwrap_or(took).as_secs_f64());
        self.answer(batch.entries, since, &logits);
        let engine = &mut self.engine;
        let kept_up = guarded(|| engine.upkeep(), EngineError::Lost);
        self.pipeline.progress.made();
        kept_up.or_else(|error| self.failed(error, Batch::new(Vec::new())))
    }

    fn answer(&self, entries: Vec<Waiting>, since: Instant, logits: &Logits) {
        let computed = since.elapsed();
        self.metrics.compute_seconds.observe(computed.as_secs_f64());
        for (entry, row) in entries.into_iter().zip(logits.rows()) {
            let finite = is_finite(row);
            let not_finite = || Refusal::Engine("its answer is not a finite number".to_owned());
            let answer = if finite {
                let logits = row.to_vec();
                Ok(Answered { logits, computed })
            } else {
                Err(not_finite())
            };
            // A client that has left meanwhile is no error; its request counts as abandoned.
            let _ = entry.reply.send(answer);
        }
    }

    /// Splits a batch that failed where that may help, and refuses it where not. A lost engine takes
    /// everything else with it.
    fn failed(&mut self, error: EngineError, batch: Batch) -> Result<(), EngineError> {
        self.count_busy();
        let texts = batch.entries.len();
        let batch = match batch.split(&error) {
            Ok([first, second]) => {
                tracing::debug!(texts, %error, "splitting a batch");
                self.split.push_front(second);
                self.split.push_front(first);
                return Ok(());
            }
            Err(batch) => batch,
        };
        self.metrics.engine_failures.inc();
        static FAILED: LogThrottle = LogThrottle::new();
        if let Some(times) = FAILED.event() {
            tracing::error!(texts, %error, times, "batch failed");
        }
        match &error {
            EngineError::Batch(_) => {
                batch.refuse(&Refusal::Engine(error.to_string()));
                self.pipeline.health.failed();
                Ok(())
            }
            EngineError::OutOfMemory { .. } => {
                batch.refuse(&Refusal::OutOfMemory);
                self.pipeline.health.failed();
                Ok(())
            }
            EngineError::Lost(_) => {
                batch.refuse(&Refusal::Unhealthy);
                let under_way = self.under_way.drain(..).map(|under_way| under_way.batch);
                for batch in under_way.chain(self.split.drain(..)) {
                    batch.refuse(&Refusal::Unhealthy);
                }
                Batch::new(self.pipeline.queue.close_and_clear()).refuse(&Refusal::Unhealthy);
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

/// What the engine does next.
enum Next {
    /// Computes these.
    Batch(Batch),
    /// Shows whether it is well again.
    Probe,
    /// Nothing now.
    None,
    /// Nothing any more.
    Closed,
}

fn is_finite(row: &[f32]) -> bool {
    row.iter().all(|logit| logit.is_finite())
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
