//! The classifier: the interface of serving to surfaces, hints and health checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::account::{Arrivals, Attempt, LedgerEntry, RequestLedger};
use super::admission::Admission;
use super::lifecycle::{Ends, EngineStopped, Generation, Lifecycle, Phase, Prepared, ReloadError};
use super::limits::Limits;
use super::observation::Observation;
use super::offer::{Offer, Stages};
use super::predict::{TextPredictor, off_thread};
use super::queue::{Class, Ticket};
use super::request::{ModelCard, Predictions, Request};
use super::timing::ServiceLine;
use crate::error::Refusal;
use crate::metrics::{Metrics, SurfaceLabel};
use crate::model::Token;
use intentd_base::turns::Turns;

/// A model behind a queue. See the [module](super) for how a request passes through it.
#[derive(Debug)]
pub struct Classifier {
    limits: Arc<Limits>,
    ledger: Arc<RequestLedger>,
    admission: Arc<Admission>,
    lifecycle: Arc<Lifecycle>,
    /// Whether other sources of texts, such as a Kafka topic, have started; true without any.
    is_fed: AtomicBool,
    /// One permit for [`tokenize`](Self::tokenize), so that it does not delay predictions.
    tokenizing: Arc<Semaphore>,
}

impl Classifier {
    /// A classifier that refuses everything until [`start`](Self::start) has loaded a model. The receiver
    /// gets the result of the current model's engine thread when it ends.
    pub fn new(limits: Limits, metrics: Metrics) -> (Arc<Self>, Ends) {
        let limits = Arc::new(limits);
        let ledger = Arc::new(RequestLedger::new(metrics.clone(), limits.slo));
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

    /// Starts the engine's thread, which calls `prepare` and then serves until [`close`](Self::close).
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start<F>(&self, prepare: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        self.lifecycle.start(prepare)
    }

    /// Replaces the model with the one that `prepare` loads. No request is lost: each is answered by the model
    /// that tokenized it.
    ///
    /// # Errors
    /// See [`ReloadError`]. The old model then stays in use.
    pub async fn reload<F>(&self, prepare: F) -> Result<(), ReloadError>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        self.lifecycle.reload(prepare).await
    }

    /// Waits until the engine has hung for `timeout`; for ever if there is none. A device is then given up: all
    /// waiting texts and those in the engine are refused. A CPU engine cannot be given up: the server is
    /// unready until the engine returns.
    pub async fn stuck(&self, timeout: Option<Duration>) -> EngineStopped {
        self.lifecycle.stuck(timeout).await
    }

    /// Offers a client's request, which has to be answered within `timeout`.
    pub fn offer(
        &self,
        surface: SurfaceLabel,
        timeout: Option<Duration>,
        attempt: Attempt,
    ) -> Offer<'_> {
        let entry = self.ledger.offer(surface, attempt);
        let stages = Stages {
            ledger: &self.ledger,
            admission: &self.admission,
            lifecycle: &self.lifecycle,
        };
        Offer::new(stages, entry, timeout)
    }

    /// Classifies the texts of a log record. Waits for slots as long as necessary.
    ///
    /// The caller bounds the number of records in flight. Records count as load when they are written to the log,
    /// not when they are read ([`Arrivals`]).
    ///
    /// # Errors
    /// Faults of the record and of the server, but never overload.
    pub async fn classify_record(&self, request: Request) -> Result<Predictions, Refusal> {
        let mut entry = self.ledger.offer_record();
        let result = self.answer_record(request, &mut entry).await;
        match &result {
            Ok(_) => entry.answer_from_log(),
            Err(refusal) => entry.refuse(refusal),
        }
        result
    }

    async fn answer_record(
        &self,
        request: Request,
        entry: &mut LedgerEntry<'_>,
    ) -> Result<Predictions, Refusal> {
        let generation = self.lifecycle.serving()?;
        let admitted = self
            .admission
            .admit_record(&generation.forecast, &request.texts);
        let tickets = admitted.await?;
        entry.set_tokens(tickets.iter().map(Ticket::tokens).sum());
        let predictor = self.predictor();
        let result = predictor.predict(generation, request, &tickets, None, None);
        let result = result.await;
        if result.is_err() {
            tickets.into_iter().for_each(Ticket::release);
        }
        result
    }

    fn predictor(&self) -> TextPredictor<'_> {
        TextPredictor {
            lifecycle: &self.lifecycle,
            host: self.admission.host(),
            metrics: self.metrics(),
        }
    }

    /// The tokens of each text, with or without special tokens.
    ///
    /// # Errors
    /// If no model is loaded, there are too many texts, or the tokenizer fails.
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

    /// The number of texts of `tokens` each that fit into a batch; 1 if no model is loaded.
    pub fn texts_a_batch(&self, tokens: u64) -> usize {
        self.lifecycle.current().map_or(1, |generation| {
            let budget = generation.pipeline.timing.batch_tokens() as u64 / tokens.max(1);
            let budget = usize::try_from(budget).unwrap_or(usize::MAX);
            budget.clamp(1, self.limits.batch.texts_max)
        })
    }

    /// Enters the draining phase. Requests are still answered.
    pub fn drain(&self) {
        self.lifecycle.drain();
    }

    /// Stops accepting requests. The engine's thread ends once the admitted ones are answered.
    pub fn close(&self) {
        self.lifecycle.close();
    }
}

/// Its state, for surfaces, hints and health checks.
impl Classifier {
    /// The process's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.ledger.metrics
    }

    /// The counters of arrivals.
    pub fn arrivals(&self) -> &Arrivals {
        &self.ledger.arrivals
    }

    /// The configured limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The turns that large requests take.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        self.admission.host().turns()
    }

    /// Whether a model has been loaded.
    pub fn is_loaded(&self) -> bool {
        self.lifecycle.is_loaded()
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Whether requests should go to other replicas although the model is loaded: consecutive batches fail, or
    /// the engine hangs.
    pub fn is_unwell(&self) -> bool {
        self.lifecycle.is_unwell()
    }

    /// Whether the classifier is ready: the model serves, the engine is healthy, and other sources have started.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && !self.is_unwell() && self.is_fed()
    }

    /// Sets whether other sources of texts, such as a Kafka topic, have started.
    pub fn set_fed(&self, is_fed: bool) {
        self.is_fed.store(is_fed, Ordering::Release);
    }

    /// Whether other sources of texts have started; true without any.
    pub fn is_fed(&self) -> bool {
        self.is_fed.load(Ordering::Acquire)
    }

    /// The model in use, if any.
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

    /// The number of the model in use; each reload takes the next number.
    pub fn generation(&self) -> Option<u64> {
        self.lifecycle.current().map(|generation| generation.number)
    }

    /// A receiver that is notified of each new model.
    pub(crate) fn models(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.lifecycle.models()
    }

    /// Sets the share of its batches' time that an engine on the cores waits for a core.
    pub(crate) fn set_waiting_share(&self, share: f64) {
        let on_host = self.lifecycle.current().filter(|model| !model.is_on_device);
        if let Some(generation) = on_host {
            generation.pipeline.timing.effort.set_waiting_share(share);
        }
    }

    /// An observation of the model in use, if any.
    pub fn observe(&self) -> Option<Observation> {
        let generation = self.lifecycle.current()?;
        let pipeline = &generation.pipeline;
        let effort = &pipeline.timing.effort;
        let ServiceLine { setup, token } = effort.curve.line();
        let slots = self.admission.slots();
        let count = |gauge: &prometheus::IntGauge| usize::try_from(gauge.get()).unwrap_or(0);
        Some(Observation {
            generation: generation.number,
            setup,
            token,
            fit_error: effort.curve.error(),
            samples: effort.curve.batches(),
            batches: effort.batches(),
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
