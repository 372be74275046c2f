//! The engine's thread: takes batches from the queue, runs them, and sends the replies.
//!
//! Work-conserving and late-bound (Inoue 2021, arXiv:1912.06322): when the engine can take a batch, it gets everything
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
use crate::metrics::Metrics;
use crate::serving::queue::{BatchLimits, Dequeued, QueuedText, TextOutput, WaitTime};
use crate::serving::timing::{Pace, engine_cpu_time};
use intentd_base::LogThrottle;

/// Interval at which a failing engine is probed while no request arrives.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A batch that the engine has, and when it got it.
struct InFlightBatch {
    batch: Batch,
    tokens: usize,
    since: Instant,
    /// CPU time of this thread before the batch.
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
    in_flight: VecDeque<InFlightBatch>,
    /// Halves of batches that failed or did not fit into the device's memory. They go before the queue.
    split: VecDeque<Batch>,
    /// When the device was last seen to have finished a batch.
    done: Instant,
    /// The last reading of the device's clock.
    device_time: Duration,
    /// A batch of our own that tests whether a failing engine has recovered.
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
            in_flight: VecDeque::new(),
            split: VecDeque::new(),
            done: Instant::now(),
            probe,
        }
    }

    /// The size limits of the next batch: no more than the objective leaves time for.
    fn limits(&self) -> BatchLimits {
        BatchLimits {
            tokens_max: self.pipeline.timing.batch_tokens(),
            texts_max: self.texts_max,
        }
    }

    /// Runs until the queue is closed and empty, or the engine is lost.
    ///
    /// Every text taken from the queue is answered in any case.
    ///
    /// # Errors
    /// [`EngineError::Lost`]. In-flight batches and waiting texts have then been refused.
    pub(crate) fn run(&mut self) -> Result<(), EngineError> {
        let mut ragged = RaggedBatch::new();
        loop {
            if self.in_flight.len() < self.engine.depth().max(1) {
                let done = match self.await_turn() {
                    Ok(done) => done,
                    Err(error) => return self.handle_failure(error, Batch::new(Vec::new())),
                };
                match self.next() {
                    NextAction::Batch(batch) => {
                        self.submit(batch, &mut ragged)?;
                        continue;
                    }
                    NextAction::Probe => {
                        self.probe()?;
                        continue;
                    }
                    NextAction::Closed if self.in_flight.is_empty() => return Ok(()),
                    // The waiting clients have left. Others may arrive while the batch still runs.
                    NextAction::None if !done => continue,
                    NextAction::Closed | NextAction::None => {}
                }
            }
            self.collect()?;
        }
    }

    /// With a batch in flight, waits until it is done (true) or the next one is due (false).
    fn await_turn(&mut self) -> Result<bool, EngineError> {
        let Some(running) = self.in_flight.front() else {
            return Ok(true);
        };
        let start = running.since.max(self.done);
        let due = self.pace.next_at(start, running.tokens);
        loop {
            let engine = &mut self.engine;
            // After a panic here, the progress of the batch is unknown.
            match guarded(|| engine.is_done(), EngineError::Lost) {
                Ok(false) => {}
                Err(error @ EngineError::Lost(_)) => return Err(error),
                // Collecting the batch reports what is wrong with it.
                Ok(true) | Err(_) => return Ok(true),
            }
            let waiting = self.pipeline.queue.size();
            // A full batch gains nothing by waiting: later texts do not fit.
            let is_due = waiting.fills(self.limits()) || !self.split.is_empty();
            let now = Instant::now();
            if is_due || (waiting.texts > 0 && now >= due) {
                return Ok(false);
            }
            match self.pace.pause(running.tokens, now - start) {
                Duration::ZERO => std::thread::yield_now(),
                pause => std::thread::sleep(pause),
            }
        }
    }

    /// The engine's next action. Blocks only while nothing is in flight.
    fn next(&mut self) -> NextAction {
        if let Some(batch) = self.split.pop_front() {
            return NextAction::Batch(batch);
        }
        let idle = self.in_flight.is_empty();
        if idle {
            self.pipeline.timing.busy.clear();
            self.pipeline.progress.idle();
        }
        let failing = self.pipeline.health.is_failing();
        let wait_time = match (idle, failing) {
            (false, _) => WaitTime::Zero,
            (true, false) => WaitTime::Unlimited,
            (true, true) => WaitTime::AtMost(PROBE_INTERVAL),
        };
        let work = self.pipeline.queue.take(self.limits(), wait_time);
        if idle {
            // The clock starts. With a batch in flight, texts that come and go are no progress.
            self.pipeline.progress.advance();
        }
        match work {
            Dequeued::Batch(entries) => {
                let now = Instant::now();
                for entry in &entries {
                    let waited = now - entry.since;
                    self.metrics.queue_seconds.observe(waited.as_secs_f64());
                }
                NextAction::Batch(Batch::new(entries))
            }
            Dequeued::Empty if idle && failing => NextAction::Probe,
            Dequeued::Empty => NextAction::None,
            Dequeued::Closed => NextAction::Closed,
        }
    }

    /// Restarts the forecast of the engine's busy time from the batches in flight.
    fn restart_forecast(&self) {
        let timing = &self.pipeline.timing;
        if self.in_flight.is_empty() {
            return timing.busy.clear();
        }
        let line = timing.curve.line();
        let seconds = |batch: &InFlightBatch| line.seconds(1.0, batch.tokens as f64);
        let left = self.in_flight.iter().map(seconds).sum();
        timing.busy.restart(Instant::now(), left);
    }

    /// Runs the probe batch on a failing engine.
    fn probe(&mut self) -> Result<(), EngineError> {
        let (engine, probe) = (&mut self.engine, &self.probe);
        match guarded(|| engine.forward(probe), EngineError::Batch) {
            Ok(logits) if logits.rows().all(is_finite) => {
                self.pipeline.health.succeeded();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error @ EngineError::Lost(_)) => self.handle_failure(error, Batch::new(Vec::new())),
            Err(error) => {
                tracing::warn!(%error, "the engine still fails");
                Ok(())
            }
        }
    }

    fn submit(&mut self, batch: Batch, ragged: &mut RaggedBatch) -> Result<(), EngineError> {
        let since = Instant::now();
        let thread = engine_cpu_time(&*self.engine);
        let panic_error = self.panic_error();
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
        let submitted = guarded(submit, panic_error);
        self.pipeline.progress.advance();
        if let Err(error) = submitted {
            return self.handle_failure(error, batch);
        }
        if self.engine.depth() > 1 {
            self.pace.submitted(since.elapsed());
        }
        self.metrics.batch_size.observe(batch.entries.len() as f64);
        self.metrics.batch_tokens.observe(tokens as f64);
        self.in_flight.push_back(InFlightBatch {
            batch,
            tokens,
            since,
            thread,
        });
        Ok(())
    }

    /// Collects and answers the oldest batch in flight, if any.
    fn collect(&mut self) -> Result<(), EngineError> {
        let Some(InFlightBatch {
            batch,
            tokens,
            since,
            thread,
        }) = self.in_flight.pop_front()
        else {
            return Ok(());
        };
        let panic_error = self.panic_error();
        let engine = &mut self.engine;
        let collected = guarded(|| engine.collect(), panic_error);
        self.pipeline.progress.advance();
        let logits = match collected {
            Ok(logits) if logits.rows().len() == batch.entries.len() => logits,
            Ok(_) => {
                let what = "it answered another batch than the oldest".to_owned();
                return self.handle_failure(EngineError::Lost(what), batch);
            }
            Err(error) => return self.handle_failure(error, batch),
        };
        if logits.rows().any(is_finite) {
            self.pipeline.health.succeeded();
        } else {
            self.pipeline.health.failed();
        }
        let done = Instant::now();
        let took = done - since.max(self.done);
        let idle = since.saturating_duration_since(self.done);
        self.done = done;
        self.pace.done(tokens, took);
        self.pipeline.timing.curve.observe(tokens, took);
        let ran = engine_cpu_time(&*self.engine).zip(thread);
        let ran = ran.map(|(after, before)| after.saturating_sub(before));
        self.pipeline.timing.effort.observe(tokens, took, ran, idle);
        self.restart_forecast();
        let device = self.engine.device_time().map(|total| {
            let before = std::mem::replace(&mut self.device_time, total);
            total.saturating_sub(before)
        });
        self.metrics
            .engine_busy
            .inc_by(device.unwrap_or(took).as_secs_f64());
        self.answer(batch.entries, since, &logits);
        let engine = &mut self.engine;
        let upkeep = guarded(|| engine.upkeep(), EngineError::Lost);
        self.pipeline.progress.advance();
        upkeep.or_else(|error| self.handle_failure(error, Batch::new(Vec::new())))
    }

    fn answer(&self, entries: Vec<QueuedText>, since: Instant, logits: &Logits) {
        let computed = since.elapsed();
        self.metrics.compute_seconds.observe(computed.as_secs_f64());
        for (entry, row) in entries.into_iter().zip(logits.rows()) {
            let finite = is_finite(row);
            let not_finite = || Refusal::Engine("its answer is not a finite number".to_owned());
            let answer = if finite {
                let logits = row.to_vec();
                Ok(TextOutput { logits, computed })
            } else {
                Err(not_finite())
            };
            // If the client has left meanwhile, its request counts as abandoned.
            let _ = entry.reply.send(answer);
        }
    }

    /// Splits a failed batch if that may help, else refuses it. If the engine is lost, everything else is
    /// refused too.
    fn handle_failure(&mut self, error: EngineError, batch: Batch) -> Result<(), EngineError> {
        self.restart_forecast();
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
                let in_flight = self.in_flight.drain(..).map(|in_flight| in_flight.batch);
                for batch in in_flight.chain(self.split.drain(..)) {
                    batch.refuse(&Refusal::Unhealthy);
                }
                Batch::new(self.pipeline.queue.close_and_clear()).refuse(&Refusal::Unhealthy);
                Err(error)
            }
        }
    }

    /// The error that a panic means. With another batch in flight it is unknown which one is the oldest.
    fn panic_error(&self) -> fn(String) -> EngineError {
        if self.in_flight.is_empty() {
            EngineError::Batch
        } else {
            EngineError::Lost
        }
    }
}

/// The engine's next action.
enum NextAction {
    /// Compute a batch.
    Batch(Batch),
    /// Test whether it has recovered.
    Probe,
    /// Nothing for now.
    None,
    /// Nothing ever again: the queue is closed and empty.
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
    // Engines keep only buffers between calls and overwrite them completely in the next one. The panic
    // hook logs the message; clients do not see it.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(panicked("it panicked".to_owned())))
}
