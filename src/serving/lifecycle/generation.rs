//! One loaded model with its queue and its engine's thread. A reload makes a new one beside it.
//!
//! Requests are answered by the generation that tokenized them: its labels, its engine. The old one
//! gets no more requests, answers those it has, and ends.

use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::{Engine, EngineError};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::{Checkpoint, Labels, Tokenizer};
use crate::serving::admission::Forecast;
use crate::serving::batching::{Batcher, Pipeline};
use crate::serving::limits::Limits;
use crate::serving::queue::Slots;
use crate::serving::timing::{self, EngineTiming, TEXT_TOKENS, batch_of};

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
    pub(crate) forecast: Forecast,
    pub(crate) pipeline: Arc<Pipeline>,
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
        let timing = Arc::new(EngineTiming::new(limits.slo, limits.batch.tokens_max));
        let start_from = timing::Start {
            prior: limits.prior.as_deref(),
            calibrate: limits.calibrate,
        };
        timing::begin(&mut *engine, &checkpoint, start_from, &timing)?;
        let Checkpoint {
            origin,
            labels,
            tokenizer,
            weights,
            ..
        } = checkpoint;
        // The engine has its own form of the weights; the file's bytes are not needed again.
        drop(weights);
        let forecast = Forecast::new(Arc::clone(&timing), Arc::clone(slots), &tokenizer);
        let pipeline = Pipeline::new(timing, limits.engine_failures_max);
        let probe = batch_of(&tokenizer, TEXT_TOKENS, 1);
        let generation = Arc::new(Self {
            number,
            origin,
            dtype: engine.dtype(),
            labels,
            is_on_device: engine.is_on_device(),
            computes_alone: engine.computes_alone(),
            forecast,
            pipeline,
            given_up: watch::Sender::new(false),
            tokenizer: Arc::new(tokenizer),
        });
        let pipeline = Arc::clone(&generation.pipeline);
        let texts_max = limits.batch.texts_max;
        let batcher = Batcher::new(engine, pipeline, texts_max, metrics.clone(), probe);
        Ok((generation, batcher))
    }

    /// Takes no further requests and refuses those that wait.
    pub(crate) fn give_up(&self) {
        for entry in self.pipeline.queue.close_and_clear() {
            let _ = entry.reply.send(Err(Refusal::Unhealthy));
        }
        self.given_up.send_replace(true);
    }
}
