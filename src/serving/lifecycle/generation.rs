//! A generation: one loaded model with its queue and its engine's thread. A reload makes the next one.
//!
//! Requests are answered by the generation that tokenized them, with its labels and its engine. The old one
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
    /// Counts up with each reload.
    pub(crate) number: u64,
    /// Where it was loaded from.
    pub(crate) origin: String,
    /// The data type that its engine computes in.
    pub(crate) dtype: &'static str,
    pub(crate) labels: Labels,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether the engine runs on a device, which may hang and be given up.
    pub(crate) is_on_device: bool,
    /// Whether only the engine's thread computes.
    pub(crate) computes_alone: bool,
    pub(crate) forecast: Forecast,
    pub(crate) pipeline: Arc<Pipeline>,
    /// Set once the texts in the engine will not be answered any more.
    pub(crate) given_up: watch::Sender<bool>,
}

impl Generation {
    /// Makes a generation from a loaded model, and the batcher for its thread.
    ///
    /// # Errors
    /// [`EngineError::Lost`] if the first batches lose the engine.
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
        let source = timing::CurveSource {
            prior: limits.prior.as_deref(),
            calibrate: limits.calibrate,
        };
        timing::initialize(&mut *engine, &checkpoint, source, &timing)?;
        let Checkpoint {
            origin,
            labels,
            tokenizer,
            weights,
            ..
        } = checkpoint;
        // The engine has its own copy of the weights. The file's bytes are no longer needed.
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

    /// Stops accepting requests and refuses those that wait.
    pub(crate) fn give_up(&self) {
        for entry in self.pipeline.queue.close_and_clear() {
            let _ = entry.reply.send(Err(Refusal::Unhealthy));
        }
        self.given_up.send_replace(true);
    }
}
