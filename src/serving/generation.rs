//! One loaded model with its queue and its engine's thread. A reload makes a new one beside it.
//!
//! Requests are answered by the generation that tokenized them: its labels, its engine. The old one
//! gets no more requests, answers those it has, and ends.

use std::sync::Arc;

use tokio::sync::watch;

use super::batcher::Batcher;
use super::calibration;
use super::classifier::Classifier;
use super::forecast::Forecast;
use super::health::Health;
use super::messages::Limits;
use super::observation::Effort;
use super::queue::Queue;
use super::slots::Slots;
use super::watchdog::Progress;
use crate::engine::{Engine, EngineError};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::{Checkpoint, Labels, Tokenizer};

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
    /// Where it came from.
    pub(crate) origin: String,
    /// The type that its engine computes in.
    pub(crate) dtype: &'static str,
    pub(crate) labels: Labels,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether the engine may hang and be given up.
    pub(crate) is_on_device: bool,
    /// Whether it computes on the engine's thread alone.
    pub(crate) computes_alone: bool,
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
        let forecast = Forecast::new(Arc::clone(slots), limits.slo, limits.batch.tokens_max);
        let effort = Effort::new();
        let curves = (&forecast.curve, &effort);
        calibration::begin(&mut *engine, &checkpoint, limits, curves)?;
        let Checkpoint {
            origin,
            labels,
            tokenizer,
            weights,
            ..
        } = checkpoint;
        // The engine has its own form of the weights; the file's bytes are not needed again.
        drop(weights);
        let shared = Arc::new(Shared {
            queue: Queue::new(),
            forecast,
            effort,
            progress: Progress::new(),
            health: Health::new(limits.engine_failures_max),
        });
        let generation = Arc::new(Self {
            number,
            origin,
            dtype: engine.dtype(),
            labels,
            is_on_device: engine.is_on_device(),
            computes_alone: engine.computes_alone(),
            shared,
            given_up: watch::Sender::new(false),
            tokenizer: Arc::new(tokenizer),
        });
        let batcher = generation.batcher(engine, limits, metrics);
        Ok((generation, batcher))
    }

    /// The loop that this generation's thread has to run.
    pub(super) fn batcher(
        &self,
        engine: Box<dyn Engine>,
        limits: &Limits,
        metrics: &Metrics,
    ) -> Batcher {
        let tokens = calibration::TEXT_TOKENS;
        let probe = calibration::batch_of(&self.tokenizer, tokens, 1);
        let shared = Arc::clone(&self.shared);
        let texts_max = limits.batch.texts_max;
        Batcher::new(engine, shared, texts_max, metrics.clone(), probe)
    }

    /// A generation with the same tokenizer and labels, and a queue of its own, for `classifier`; and the loop that its thread has to run.
    pub(super) fn like(
        &self,
        engine: Box<dyn Engine>,
        classifier: &Classifier,
    ) -> (Arc<Self>, Batcher) {
        let limits = &classifier.limits;
        let slots = Arc::clone(&classifier.slots);
        let shared = Arc::new(Shared {
            queue: Queue::new(),
            forecast: Forecast::new(slots, limits.slo, limits.batch.tokens_max),
            effort: Effort::new(),
            progress: Progress::new(),
            health: Health::new(limits.engine_failures_max),
        });
        let generation = Arc::new(Self {
            number: self.number,
            origin: self.origin.clone(),
            dtype: self.dtype,
            labels: self.labels.clone(),
            tokenizer: Arc::clone(&self.tokenizer),
            is_on_device: self.is_on_device,
            computes_alone: self.computes_alone,
            shared,
            given_up: watch::Sender::new(false),
        });
        let batcher = generation.batcher(engine, limits, classifier.metrics());
        (generation, batcher)
    }

    /// Takes no further requests and refuses those that wait.
    pub(crate) fn give_up(&self) {
        for entry in self.shared.queue.close_and_clear() {
            let _ = entry.reply.send(Err(Refusal::Unhealthy));
        }
        self.given_up.send_replace(true);
    }
}
