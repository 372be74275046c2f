//! One loaded model with its queue and its engine's thread. A reload makes a new one beside it.
//!
//! Requests are answered by the generation that tokenized them: its labels, its engine. The old one
//! gets no more requests, answers those it has, and ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::batcher::Batcher;
use super::forecast::Forecast;
use super::health::Health;
use super::messages::Limits;
use super::observation::{Effort, thread_time};
use super::queue::Queue;
use super::slots::Slots;
use super::watchdog::Progress;
use crate::engine::{Engine, EngineError, RaggedBatch};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::{Checkpoint, Labels, Text, Tokenizer, TooLong};

/// Tokens of the batches by which the service curve is begun.
const CALIBRATION_TOKENS: [usize; 3] = [16, 64, 256];

/// Time for one size of them, and for all.
const CALIBRATION_SIZE: Duration = Duration::from_millis(5);
const CALIBRATION: Duration = Duration::from_millis(150);

/// What requests and the engine's thread have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) forecast: Forecast,
    pub(crate) effort: Effort,
    pub(crate) progress: Progress,
    pub(crate) health: Health,
}

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts up from reload to reload.
    pub(crate) number: u64,
    pub(crate) labels: Labels,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether the engine may hang and be given up.
    pub(crate) is_on_device: bool,
    pub(crate) shared: Arc<Shared>,
    /// Set when nobody will answer what the engine has taken.
    pub(crate) given_up: watch::Sender<bool>,
}

impl Generation {
    /// Makes a generation of a loaded model, and the loop that its thread has to run.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when that is what the first batches show.
    pub(crate) fn new(
        number: u64,
        (checkpoint, mut engine): (Checkpoint, Box<dyn Engine>),
        limits: &Limits,
        slots: &Arc<Slots>,
        metrics: &Metrics,
    ) -> Result<(Arc<Self>, Batcher), EngineError> {
        tracing::info!(
            model = checkpoint.origin,
            engine = engine.description(),
            labels = checkpoint.labels.len(),
            "model loaded"
        );
        let Checkpoint {
            labels,
            tokenizer,
            weights,
            ..
        } = checkpoint;
        // The engine has its own form of the weights; the file's bytes are not needed again.
        drop(weights);
        let forecast = Forecast::new(Arc::clone(slots), limits.slo, limits.batch.tokens_max);
        let effort = Effort::new();
        if limits.calibrate {
            calibrate(&mut *engine, &tokenizer, &forecast, &effort)?;
        }
        let shared = Arc::new(Shared {
            queue: Queue::new(),
            forecast,
            effort,
            progress: Progress::new(),
            health: Health::new(limits.engine_failures_max),
        });
        let generation = Arc::new(Self {
            number,
            labels,
            is_on_device: engine.is_on_device(),
            shared: Arc::clone(&shared),
            given_up: watch::Sender::new(false),
            tokenizer: Arc::new(tokenizer),
        });
        let probe = batch_of(&generation.tokenizer, CALIBRATION_TOKENS[0], 1);
        let texts_max = limits.batch.texts_max;
        let batcher = Batcher::new(engine, shared, texts_max, metrics.clone(), probe);
        Ok((generation, batcher))
    }

    /// Takes no further requests and refuses those that wait.
    pub(crate) fn give_up(&self) {
        for entry in self.shared.queue.close_and_clear() {
            let _ = entry.reply.send(Err(Refusal::Unhealthy));
        }
        self.given_up.send_replace(true);
    }
}

/// Lets the engine compute a few batches, so that the first requests are judged by its real speed.
fn calibrate(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    forecast: &Forecast,
    effort: &Effort,
) -> Result<(), EngineError> {
    let start = Instant::now();
    let largest = engine.largest();
    for tokens in CALIBRATION_TOKENS {
        let texts = tokens / CALIBRATION_TOKENS[0];
        if largest.is_some_and(|largest| largest.tokens < tokens || largest.sequences < texts) {
            return Ok(());
        }
        let batch = batch_of(tokenizer, CALIBRATION_TOKENS[0], texts);
        let size = Instant::now();
        let mut times = Vec::new();
        while times.is_empty() || size.elapsed() < CALIBRATION_SIZE {
            let since = Instant::now();
            let thread = thread_time(engine);
            match engine.forward(&batch) {
                Ok(_) => {
                    let ran = thread_time(engine).zip(thread);
                    let ran = ran.map(|(after, before)| after.saturating_sub(before));
                    times.push((since.elapsed(), ran));
                }
                // A device that cannot take so much will say so again when it matters.
                Err(EngineError::OutOfMemory { .. }) => return Ok(()),
                Err(error @ EngineError::Lost(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "calibration ended early");
                    return Ok(());
                }
            }
        }
        // The median: the first of a size makes room and wakes threads, and the machine may be busy.
        times.sort_unstable();
        let (took, ran) = times[times.len() / 2];
        forecast.curve.observe(batch.tokens(), took);
        effort.observe(batch.tokens(), took, ran);
        if start.elapsed() > CALIBRATION {
            return Ok(());
        }
    }
    Ok(())
}

/// `texts` equal texts of about `tokens` tokens each.
fn batch_of(tokenizer: &Tokenizer, tokens: usize, texts: usize) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    let words = "a ".repeat(tokens.saturating_sub(2).max(1));
    if let Ok(encoded) = tokenizer.encode(&Text::Single(words), TooLong::Truncate) {
        for _ in 0..texts {
            batch.push(&encoded.ids, &encoded.type_ids);
        }
    }
    batch
}
