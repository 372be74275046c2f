//! The classifier: what surfaces call, and what others see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::account::{Arrivals, Ledger, Try};
use super::admission::Admission;
use super::lifecycle::{Ends, EngineStopped, Generation, Lifecycle, Phase, Prepared, ReloadError};
use super::limits::Limits;
use super::observation::Observation;
use super::offer::Offer;
use super::predict::{Predictor, off_thread};
use super::queue::{Class, Ticket};
use super::request::{ModelCard, Predictions, Request};
use super::timing::Line;
use crate::error::Refusal;
use crate::metrics::{Metrics, Surface};
use crate::model::Token;
use crate::turns::Turns;

/// A model behind a queue. See the [module](super) for how a request passes through it.
#[derive(Debug)]
pub struct Classifier {
    limits: Arc<Limits>,
    ledger: Arc<Ledger>,
    admission: Arc<Admission>,
    lifecycle: Arc<Lifecycle>,
    /// Whether what feeds this classifier beside requests has begun, or there is nothing else.
    is_fed: AtomicBool,
    /// One permit for [`tokenize`](Self::tokenize), which people use: it never delays a prediction.
    tokenizing: Arc<Semaphore>,
}

impl Classifier {
    /// A classifier that refuses everything until [`start`](Self::start) has loaded a model. The
    /// receiver hears how the engine's thread of the model in use ended.
    pub fn new(limits: Limits, metrics: Metrics) -> (Arc<Self>, Ends) {
        let limits = Arc::new(limits);
        let ledger = Arc::new(Ledger::new(metrics.clone()));
        let admission = Admission::new(Arc::clone(&limits), Arc::clone(&ledger));
        let (lifecycle, ends) =
            Lifecycle::new(Arc::clone(&limits), metrics, Arc::clone(&admission));
        let classifier = Arc::new(Self {
            limits,
            ledger,
            admission,
            lifecycle,
            is_fed: AtomicBool::new(true),
            tokenizing: Arc::new(Semaphore::new(1)),
        });
        (classifier, ends)
    }

    /// Starts the engine's thread: it calls `prepare`, then serves until [`close`](Self::close).
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start<F>(&self, prepare: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        self.lifecycle.start(prepare)
    }

    /// Replaces the model by what `prepare` loads without losing a request: each is answered by the model that
    /// tokenized it.
    ///
    /// # Errors
    /// See [`ReloadError`]; the model before is then still in use.
    pub async fn reload<F>(&self, prepare: F) -> Result<(), ReloadError>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        self.lifecycle.reload(prepare).await
    }

    /// Ready once the engine has hung for `timeout`, if there is one. A device is then given up: everything
    /// waiting, and what the engine has taken, is refused. An engine on the CPU cannot be given up; the server
    /// is not ready until it comes back.
    pub async fn stuck(&self, timeout: Option<Duration>) -> EngineStopped {
        self.lifecycle.stuck(timeout).await
    }

    /// Enters a request of a client, which wants no answer after `timeout`.
    pub fn offer(&self, surface: Surface, timeout: Option<Duration>, attempt: Try) -> Offer<'_> {
        let entry = self.ledger.offer(surface, attempt);
        let services = (&*self.ledger, &*self.admission, &*self.lifecycle);
        Offer::new(services, entry, timeout)
    }

    /// Classifies the texts of a record of a log, however long there is no room for them.
    ///
    /// The caller bounds how many of these are under way at once. They count as load when they are written to the
    /// log, not when they are read ([`Arrivals`]).
    ///
    /// # Errors
    /// What is wrong with the record, and what is wrong with the server; never that there is too much to do.
    pub async fn classify_record(&self, request: Request) -> Result<Predictions, Refusal> {
        let mut entry = self.ledger.offer_record();
        let result = self.answer_record(request).await;
        match &result {
            Ok(_) => entry.answer_from_log(),
            Err(refusal) => entry.refuse(refusal),
        }
        result
    }

    async fn answer_record(&self, request: Request) -> Result<Predictions, Refusal> {
        let generation = self.lifecycle.serving()?;
        let admitted = self
            .admission
            .admit_in_time(&generation.forecast, &request.texts);
        let tickets = admitted.await?;
        let predictor = self.predictor();
        let result = predictor.predict(generation, request, &tickets, None, None);
        let result = result.await;
        if result.is_err() {
            tickets.into_iter().for_each(Ticket::release);
        }
        result
    }

    fn predictor(&self) -> Predictor<'_> {
        Predictor {
            lifecycle: &self.lifecycle,
            host: self.admission.host(),
            metrics: self.metrics(),
        }
    }

    /// The tokens of each text, with special ones or without.
    ///
    /// # Errors
    /// If no model serves, and what the tokenizer says.
    pub async fn tokenize(
        &self,
        texts: Vec<String>,
        with_special: bool,
    ) -> Result<Vec<Vec<Token>>, Refusal> {
        let max = self.limits.texts_max;
        if texts.len() > max {
            let found = texts.len();
            return Err(Refusal::TooManyTexts { found, max });
        }
        let tokenizer = Arc::clone(&self.lifecycle.serving()?.tokenizer);
        let permit = Arc::clone(&self.tokenizing).acquire_owned().await;
        let tokenize = move || {
            let tokens = |text: &String| Ok(tokenizer.tokens(text, with_special)?);
            let tokens = texts.iter().map(tokens).collect();
            drop(permit);
            tokens
        };
        off_thread(tokenize).await
    }

    /// Texts of `tokens` each that a batch holds; 1 if no model is loaded.
    pub fn texts_a_batch(&self, tokens: u64) -> usize {
        self.lifecycle.current().map_or(1, |generation| {
            let budget = generation.pipeline.timing.batch_tokens() as u64 / tokens.max(1);
            let budget = usize::try_from(budget).unwrap_or(usize::MAX);
            budget.clamp(1, self.limits.batch.texts_max)
        })
    }

    /// Marks the process as about to end; requests are still answered.
    pub fn drain(&self) {
        self.lifecycle.drain();
    }

    /// Takes no further requests; those admitted are answered, then the engine's thread ends.
    pub fn close(&self) {
        self.lifecycle.close();
    }
}

/// What others see of it.
impl Classifier {
    /// The process's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.ledger.metrics
    }

    /// The counters of what has come so far.
    pub fn arrivals(&self) -> &Arrivals {
        &self.ledger.arrivals
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The turns that large requests take.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        self.admission.host().turns()
    }

    /// Whether the model was ever ready.
    pub fn is_loaded(&self) -> bool {
        self.lifecycle.is_loaded()
    }

    /// Where the classifier's life stands.
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Whether requests should go elsewhere although the model is loaded: its batches fail in a row, or the engine
    /// does not come back.
    pub fn is_unwell(&self) -> bool {
        self.lifecycle.is_unwell()
    }

    /// Whether requests are answered, and well, and everything that feeds the classifier has begun.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && !self.is_unwell() && self.is_fed()
    }

    /// Sets whether what feeds this classifier beside requests, such as a topic of Kafka, has begun.
    pub fn set_fed(&self, is_fed: bool) {
        self.is_fed.store(is_fed, Ordering::Release);
    }

    /// Whether what feeds this classifier beside requests has begun, or there is nothing else.
    pub fn is_fed(&self) -> bool {
        self.is_fed.load(Ordering::Acquire)
    }

    /// The model in use, if there is one.
    pub fn model(&self) -> Option<ModelCard> {
        let generation = self.lifecycle.current()?;
        Some(ModelCard {
            origin: generation.origin.clone(),
            dtype: generation.dtype,
            labels: generation.labels.clone(),
            max_tokens: generation.tokenizer.max_tokens(),
            is_on_device: generation.is_on_device,
        })
    }

    /// Which of the models that this process has loaded is in use.
    pub fn generation(&self) -> Option<u64> {
        self.lifecycle.current().map(|generation| generation.number)
    }

    /// Notified of each model that comes into use.
    pub(crate) fn models(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.lifecycle.models()
    }

    /// Sets the part of the cores that everything but the engine takes.
    pub(crate) fn set_host_share(&self, share: f64) {
        let on_host = self.lifecycle.current().filter(|model| !model.is_on_device);
        if let Some(generation) = on_host {
            generation.pipeline.timing.effort.set_host_share(share);
        }
    }

    /// A snapshot of the model in use, if there is one.
    pub fn observe(&self) -> Option<Observation> {
        let generation = self.lifecycle.current()?;
        let pipeline = &generation.pipeline;
        let effort = &pipeline.timing.effort;
        let Line { setup, token } = effort.curve.line();
        let slots = self.admission.slots();
        let count = |gauge: &prometheus::IntGauge| usize::try_from(gauge.get()).unwrap_or(0);
        Some(Observation {
            generation: generation.number,
            setup,
            token,
            fit_error: effort.curve.error(),
            batches: effort.curve.batches(),
            batch_tokens: pipeline.timing.batch_tokens(),
            batch_texts: self.limits.batch.texts_max,
            shares_cores: !generation.is_on_device,
            computes_alone: generation.computes_alone,
            engine: effort.time(),
            byte: self.admission.host().byte_cost(),
            waiting_tokens: slots.tokens(Class::Single) + slots.tokens(Class::List),
            backlog: self.arrivals().backlog(),
            waiting_texts: count(&self.metrics().queue_depth),
            oldest_wait: pipeline.queue.oldest_wait(),
            in_flight: count(&self.metrics().in_flight),
        })
    }
}
