//! From texts to predictions: admission, tokenizer, queue, batcher, engine, reply.
//!
//! [`Classifier`] is what every surface calls. It takes a list of texts, gives one prediction a
//! text in the same order or one [`Refusal`] for the whole list, and forgets the list when the
//! caller drops the future. Bounded by [`Limits`]; never blocks an async thread on the engine.

mod admission;
mod batcher;
mod messages;
mod pace;
mod queue;
mod watchdog;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use self::admission::Admission;
pub use self::batcher::BatchLimits;
use self::batcher::Batcher;
pub use self::messages::{Limits, Prediction, Predictions, Request};
use self::queue::{Answer, Queue, Slots, Ticket, Waiting};
use self::watchdog::Progress;
use crate::engine::{Engine, EngineError, LoadError};
use crate::error::Refusal;
use crate::metrics::{Metrics, Outcome};
use crate::model::{Checkpoint, Encoded, Labels, Text, Tokenizer};

/// Texts longer than this together are tokenized off the async threads: one to two milliseconds.
const BLOCKING_BYTES: usize = 2 << 10;

/// Where the life of a classifier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The model is being loaded.
    Loading,
    /// Requests are answered.
    Ready,
    /// Requests are still answered, but no more should come: the process is about to end.
    Draining,
    /// The engine is lost.
    Lost,
}

const PHASES: [Phase; 4] = [Phase::Loading, Phase::Ready, Phase::Draining, Phase::Lost];

/// A model behind a queue.
#[derive(Debug)]
pub struct Classifier {
    limits: Limits,
    metrics: Metrics,
    admission: Arc<Admission>,
    slots: Arc<Slots>,
    queue: Arc<Queue>,
    model: OnceLock<Model>,
    phase: AtomicU8,
    /// One permit a core. A tokenization that runs cannot be called back when its client leaves;
    /// this bounds how many there are.
    blocking: Arc<Semaphore>,
    progress: Arc<Progress>,
    /// Set when nobody will answer what the engine has taken.
    given_up: watch::Sender<bool>,
}

/// What requests need of the checkpoint once the engine has its weights.
#[derive(Debug)]
struct Model {
    labels: Labels,
    tokenizer: Arc<Tokenizer>,
    /// Whether the engine may hang and be given up.
    is_on_device: bool,
}

/// Why the engine's thread ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineStopped {
    /// The checkpoint or the device cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine broke while serving.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Loading panicked.
    #[error("loading the model panicked; the checkpoint is damaged in a way that is not checked")]
    PanickedLoading,
    /// The engine has taken a batch and does not come back.
    #[error("the engine has not got anywhere for {0:?} (--engine-timeout)")]
    Stuck(Duration),
    /// The engine's thread panicked while serving.
    #[error("the engine's thread panicked; what waited was refused")]
    PanickedServing,
}

impl Classifier {
    /// A classifier that refuses everything until [`start`](Self::start) has ended.
    pub fn new(limits: Limits, metrics: Metrics) -> Arc<Self> {
        let depth = metrics.queue_depth.clone();
        let abandoned = metrics.abandoned_texts.clone();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Arc::new(Self {
            limits,
            admission: Admission::new(limits.concurrency_max, metrics.clone()),
            slots: Slots::new(limits.queue_max, depth, abandoned),
            queue: Arc::new(Queue::new(limits.queue_max)),
            metrics,
            model: OnceLock::new(),
            phase: AtomicU8::new(Phase::Loading as u8),
            blocking: Arc::new(Semaphore::new(cores)),
            progress: Arc::new(Progress::new()),
            given_up: watch::Sender::new(false),
        })
    }

    /// Starts the engine's thread: it calls `prepare`, then serves until
    /// [`close`](Self::close). `ended` hears how it went.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start<F>(
        self: &Arc<Self>,
        prepare: F,
        ended: oneshot::Sender<Result<(), EngineStopped>>,
    ) -> std::io::Result<JoinHandle<()>>
    where
        F: FnOnce() -> Result<(Checkpoint, Box<dyn Engine>), LoadError> + Send + 'static,
    {
        let classifier = Arc::clone(self);
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| classifier.serve(prepare));
                let result = std::panic::catch_unwind(run);
                let panicked = if classifier.is_loaded() {
                    EngineStopped::PanickedServing
                } else {
                    EngineStopped::PanickedLoading
                };
                let result = result.unwrap_or(Err(panicked));
                if result.is_err() {
                    classifier.enter(Phase::Lost);
                }
                // However this thread ends, nobody is left waiting for it.
                for entry in classifier.queue.close_and_clear() {
                    let _ = entry.reply.send(Err(Refusal::Unhealthy));
                }
                // Nobody listens any more when the process is ending anyway.
                let _ = ended.send(result);
            })
    }

    fn serve(
        &self,
        prepare: impl FnOnce() -> Result<(Checkpoint, Box<dyn Engine>), LoadError>,
    ) -> Result<(), EngineStopped> {
        let (checkpoint, engine) = prepare()?;
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
        self.model.get_or_init(|| Model {
            labels,
            tokenizer: Arc::new(tokenizer),
            is_on_device: engine.is_on_device(),
        });
        self.enter(Phase::Ready);
        let (queue, metrics) = (Arc::clone(&self.queue), self.metrics.clone());
        let progress = Arc::clone(&self.progress);
        let mut batcher = Batcher::new(engine, queue, self.limits.batch, metrics, progress);
        let result = batcher.run();
        if result.is_err() {
            self.enter(Phase::Lost);
            // Taking it down might wait for a device that does not answer; the process ends anyway.
            std::mem::forget(batcher);
        }
        Ok(result?)
    }

    /// Ready once the engine has hung for `timeout` (never for zero). Everything waiting, and what
    /// the engine has taken, is then refused.
    pub async fn stuck(&self, timeout: Duration) -> EngineStopped {
        self.progress.stuck(timeout).await;
        self.enter(Phase::Lost);
        for entry in self.queue.close_and_clear() {
            let _ = entry.reply.send(Err(Refusal::Unhealthy));
        }
        self.given_up.send_replace(true);
        EngineStopped::Stuck(timeout)
    }

    /// Whether the model was ever ready.
    pub fn is_loaded(&self) -> bool {
        self.model.get().is_some()
    }

    /// Where the classifier's life stands.
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Says that the process is about to end; requests are still answered.
    pub fn drain(&self) {
        self.enter(Phase::Draining);
    }

    /// Takes no further requests; those admitted are answered, then the engine's thread ends.
    pub fn close(&self) {
        self.queue.close();
    }

    /// The phase only moves forward.
    fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// The process's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Classifies a list of texts: all of them, or one refusal for the list.
    ///
    /// Dropping the future takes the texts that still wait out of the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn classify(&self, request: Request) -> Result<Predictions, Refusal> {
        let permit = match self.admission.admit() {
            Ok(permit) => permit,
            Err(refusal) => return Err(self.turn_away(refusal)),
        };
        match self.answer(request, permit.since()).await {
            Ok(predictions) => {
                permit.answered();
                Ok(predictions)
            }
            Err(refusal) => {
                permit.refused(&refusal);
                Err(refusal)
            }
        }
    }

    /// Counts a request that was refused before it got a permit, or before it got here.
    pub fn turn_away(&self, refusal: Refusal) -> Refusal {
        self.metrics
            .refused
            .with_label_values(&[refusal.reason()])
            .inc();
        self.metrics.ended(Outcome::Refused).inc();
        refusal
    }

    async fn answer(&self, request: Request, since: Instant) -> Result<Predictions, Refusal> {
        let count = request.texts.len();
        if count == 0 {
            return Err(Refusal::Empty);
        }
        if count > self.limits.texts_max {
            let max = self.limits.texts_max;
            return Err(Refusal::TooManyTexts { found: count, max });
        }
        let model = match (self.phase(), self.model.get()) {
            (Phase::Ready | Phase::Draining, Some(model)) => model,
            (Phase::Lost, _) => return Err(Refusal::Unhealthy),
            _ => return Err(Refusal::Loading),
        };
        let tickets = self.slots.reserve(count)?;
        let result = self.predict(model, request, since, &tickets).await;
        if result.is_err() {
            // The client is still there: its texts are refused, not abandoned.
            tickets.into_iter().for_each(Ticket::release);
        }
        result
    }

    async fn predict(
        &self,
        model: &Model,
        request: Request,
        since: Instant,
        tickets: &[Ticket],
    ) -> Result<Predictions, Refusal> {
        let encoded = self.encode(model, request, since).await?;
        let shapes: Vec<(usize, bool)> = encoded
            .iter()
            .map(|encoded| (encoded.ids.len(), encoded.truncated))
            .collect();
        let replies = self.enqueue(tickets, encoded)?;
        let answers = answers(replies, shapes);
        let items = if model.is_on_device {
            let mut given_up = self.given_up.subscribe();
            tokio::select! {
                biased;
                items = answers => items?,
                // The sender lives as long as `self`.
                _ = given_up.wait_for(|given_up| *given_up) => return Err(Refusal::Unhealthy),
            }
        } else {
            answers.await?
        };
        Ok(Predictions {
            labels: model.labels.clone(),
            items,
        })
    }

    async fn encode(
        &self,
        model: &Model,
        request: Request,
        since: Instant,
    ) -> Result<Vec<Encoded>, Refusal> {
        let bytes: usize = request.texts.iter().map(Text::bytes).sum();
        let tokenizer = Arc::clone(&model.tokenizer);
        let work = move || -> Result<Vec<Encoded>, Refusal> {
            let encode = |text| Ok(tokenizer.encode(text, request.too_long)?);
            request.texts.iter().map(encode).collect()
        };
        let encoded = if bytes > BLOCKING_BYTES {
            let failed = || Refusal::Engine("its tokenizer panicked".to_owned());
            let permit = Arc::clone(&self.blocking).acquire_owned().await;
            let work = move || {
                let result = work();
                drop(permit);
                result
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| failed())?
        } else {
            work()
        };
        self.metrics
            .tokenize_seconds
            .observe(since.elapsed().as_secs_f64());
        encoded
    }

    fn enqueue(
        &self,
        tickets: &[Ticket],
        encoded: Vec<Encoded>,
    ) -> Result<Vec<oneshot::Receiver<Answer>>, Refusal> {
        let since = Instant::now();
        let mut replies = Vec::with_capacity(encoded.len());
        let mut entries = Vec::with_capacity(encoded.len());
        for (ticket, encoded) in tickets.iter().zip(encoded) {
            let (reply, receiver) = oneshot::channel();
            entries.push(Waiting::new(ticket, encoded, since, reply));
            replies.push(receiver);
        }
        self.queue.push(entries).map_err(|_| Refusal::Unhealthy)?;
        Ok(replies)
    }
}

/// The predictions that come in for texts of these lengths, truncated or not, in their order.
async fn answers(
    replies: Vec<oneshot::Receiver<Answer>>,
    shapes: Vec<(usize, bool)>,
) -> Result<Vec<Prediction>, Refusal> {
    let mut items = Vec::with_capacity(replies.len());
    for (reply, (tokens, truncated)) in replies.into_iter().zip(shapes) {
        let lost = || Refusal::Engine("its thread ended without an answer".to_owned());
        let logits = reply.await.unwrap_or_else(|_| Err(lost()))?;
        items.push(Prediction {
            logits,
            tokens,
            truncated,
        });
    }
    Ok(items)
}
