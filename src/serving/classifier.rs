//! A model behind a queue, and its life: loading, serving, reloads, the end.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::admission::Admission;
use super::arrivals::Arrivals;
use super::batcher::Batcher;
use super::generation::Generation;
use super::host::Host;
use super::messages::Limits;
use super::rehearsal::{Rehearsal, rehearse};
use super::slots::Slots;
use super::stopped::{EngineStopped, ReloadError};
use crate::engine::{Engine, LoadError};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::Checkpoint;
use crate::turns::Turns;

/// Tokens of a request by which limits are derived from the capacity: a short question.
const REQUEST_TOKENS: f64 = 16.0;

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

/// What loading gives: a model and the engine that has its weights.
pub type Prepared = Result<(Checkpoint, Box<dyn Engine>), LoadError>;

/// A model behind a queue.
#[derive(Debug)]
pub struct Classifier {
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) admission: Arc<Admission>,
    pub(super) slots: Arc<Slots>,
    /// What has come, for those who size the fleet.
    pub(super) arrivals: Arc<Arrivals>,
    /// The model that answers; `None` until the first is loaded.
    current: watch::Sender<Option<Arc<Generation>>>,
    generations: AtomicU64,
    phase: AtomicU8,
    closed: AtomicBool,
    /// Whether what feeds this classifier beside requests has begun, or there is nothing else.
    pub(super) is_fed: AtomicBool,
    /// What large requests ask of the host.
    pub(super) host: Arc<Host>,
    /// One permit, for what people look at: it never keeps a request for predictions waiting.
    pub(super) asides: Arc<Semaphore>,
    /// One permit: models are loaded one after the other.
    loading: Arc<Semaphore>,
    ended: mpsc::UnboundedSender<Result<(), EngineStopped>>,
    rehearsal: OnceLock<Rehearsal>,
}

impl Classifier {
    /// A classifier that refuses everything until [`start`](Self::start) has loaded a model. The
    /// receiver hears how the engine's thread of the model in use ended.
    pub fn new(
        limits: Limits,
        metrics: Metrics,
    ) -> (
        Arc<Self>,
        mpsc::UnboundedReceiver<Result<(), EngineStopped>>,
    ) {
        let depth = metrics.queue_depth.clone();
        let abandoned = metrics.abandoned_texts.clone();
        // Raised once a model is loaded and measured.
        let unknown = (!limits.slo.is_zero()).then_some(0.0);
        let (concurrency, room) = limits.for_capacity(unknown);
        let (ended, ends) = mpsc::unbounded_channel();
        let classifier = Arc::new(Self {
            limits,
            admission: Admission::new(concurrency, metrics.clone()),
            slots: Slots::new(room, depth, abandoned),
            metrics,
            arrivals: Arc::new(Arrivals::new()),
            current: watch::Sender::new(None),
            generations: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Loading as u8),
            closed: AtomicBool::new(false),
            is_fed: AtomicBool::new(true),
            host: Host::new(Turns::beside_one_core()),
            asides: Arc::new(Semaphore::new(1)),
            loading: Arc::new(Semaphore::new(1)),
            ended,
            rehearsal: OnceLock::new(),
        });
        (classifier, ends)
    }

    /// Sets what is done with a twin of this classifier when the first model is loaded and before it is used.
    /// Not done without calibration, nor with a model that is slow beside everything else.
    pub fn rehearse_with(&self, rehearsal: Rehearsal) {
        // Once is enough: there is one server.
        let _ = self.rehearsal.set(rehearsal);
    }

    /// From now on, requests are answered by `generation`.
    pub(super) fn use_model(&self, generation: Arc<Generation>) -> Option<Arc<Generation>> {
        self.current.send_replace(Some(generation))
    }

    /// Starts the engine's thread: it calls `prepare`, then serves until [`close`](Self::close).
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start<F>(self: &Arc<Self>, prepare: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        let (loaded, _) = oneshot::channel();
        // Nobody else has the classifier yet, let alone its one permit.
        let permit = Arc::clone(&self.loading).try_acquire_owned().ok();
        self.spawn(prepare, loaded, permit)
    }

    /// Replaces the model by what `prepare` loads, without a request being lost: those that have
    /// come are answered by the model that they came to.
    ///
    /// # Errors
    /// See [`ReloadError`]; the model before is then still in use.
    pub async fn reload<F>(self: &Arc<Self>, prepare: F) -> Result<(), ReloadError>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        let permit = Arc::clone(&self.loading).try_acquire_owned();
        let permit = permit.map_err(|_| ReloadError::Busy)?;
        match self.phase() {
            Phase::Ready => {}
            Phase::Loading => return Err(ReloadError::Phase("still loading its first")),
            Phase::Draining => return Err(ReloadError::Phase("about to end")),
            Phase::Lost => return Err(ReloadError::Phase("without an engine, and about to end")),
        }
        let (loaded, outcome) = oneshot::channel();
        let spawned = self.spawn(prepare, loaded, Some(permit));
        spawned.map_err(ReloadError::Thread)?;
        let outcome = outcome.await;
        outcome
            .unwrap_or(Err(EngineStopped::PanickedLoading))
            .map_err(ReloadError::Stopped)
    }

    /// Starts a thread that loads a model and serves it. `loaded` hears how the loading went, if
    /// whoever asked still listens; the permit is held until then in any case.
    fn spawn<F>(
        self: &Arc<Self>,
        prepare: F,
        loaded: oneshot::Sender<Result<(), EngineStopped>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> std::io::Result<()>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        let classifier = Arc::clone(self);
        let is_first = !self.is_loaded();
        let run = move || {
            let load = std::panic::AssertUnwindSafe(|| classifier.load(prepare));
            let load = std::panic::catch_unwind(load);
            if !is_first {
                let label = if matches!(load, Ok(Ok(_))) {
                    "done"
                } else {
                    "failed"
                };
                classifier.metrics.reloads.with_label_values(&[label]).inc();
            }
            drop(permit);
            match load.unwrap_or(Err(EngineStopped::PanickedLoading)) {
                Ok((generation, batcher)) => {
                    // Whoever asked may have left; the model is in use all the same.
                    let _ = loaded.send(Ok(()));
                    classifier.serve(&generation, batcher);
                }
                Err(stopped) if classifier.is_loaded() => {
                    let _ = loaded.send(Err(stopped));
                }
                Err(stopped) => {
                    classifier.enter(Phase::Lost);
                    // Nobody listens any more when the process is ending anyway.
                    let _ = classifier.ended.send(Err(stopped));
                }
            }
        };
        let thread = std::thread::Builder::new().name("engine".to_owned());
        thread.spawn(run).map(drop)
    }

    fn load(
        &self,
        prepare: impl FnOnce() -> Prepared,
    ) -> Result<(Arc<Generation>, Batcher), EngineStopped> {
        let number = self.generations.fetch_add(1, Ordering::Relaxed);
        let prepared = prepare()?;
        let made = Generation::new(number, prepared, &self.limits, &self.slots, &self.metrics);
        let (generation, mut batcher) = made?;
        let is_first = !self.is_loaded() && self.limits.calibrate;
        if let Some(rehearsal) = self.rehearsal.get().filter(|_| is_first) {
            let with = (&self.limits, &self.metrics);
            batcher = rehearse(rehearsal, &generation, batcher, with)?;
        }
        let forecast = &generation.shared.forecast;
        let capacity = forecast.capacity(REQUEST_TOKENS);
        let measured = !self.limits.slo.is_zero() && forecast.curve.batches() > 0;
        let (concurrency, room) = self.limits.for_capacity(measured.then_some(capacity));
        tracing::info!(
            requests_a_second = measured.then_some(capacity as u64),
            batch_tokens = forecast.batch_tokens(),
            concurrency,
            queue = room.slots,
            "limits"
        );
        // What one core's worth of a busy machine shows at a reload is no reason to take on less.
        self.admission.grow(concurrency);
        self.slots.grow(room);
        let before = self.use_model(Arc::clone(&generation));
        self.enter(Phase::Ready);
        if let Some(before) = before {
            // It answers what it has; what comes too late for it goes to the new one.
            before.shared.queue.close();
        }
        if self.closed.load(Ordering::SeqCst) {
            // The process ends, and whoever closed may have seen the one before only.
            generation.shared.queue.close();
        }
        Ok((generation, batcher))
    }

    /// Runs the batches of a generation until its queue is closed and empty.
    fn serve(&self, generation: &Arc<Generation>, mut batcher: Batcher) {
        let run = std::panic::AssertUnwindSafe(|| batcher.run());
        let result = match std::panic::catch_unwind(run) {
            Ok(result) => result.map_err(EngineStopped::from),
            Err(_) => Err(EngineStopped::PanickedServing),
        };
        let is_current = self
            .current()
            .is_some_and(|current| current.number == generation.number);
        if result.is_err() && is_current {
            self.enter(Phase::Lost);
        }
        // However this thread ends, nobody is left waiting for it.
        generation.give_up();
        if result.is_err() && generation.is_on_device {
            // Taking it down might wait for a device that does not answer. Elsewhere it is what
            // tells those whose answers it owes that there will be none.
            std::mem::forget(batcher);
        } else {
            drop(batcher);
        }
        match result {
            result if is_current => {
                // Nobody listens any more when the process is ending anyway.
                let _ = self.ended.send(result);
            }
            Ok(()) => tracing::info!("the model before has answered its last request"),
            Err(stopped) => tracing::error!(%stopped, "the model before ended early"),
        }
    }

    /// Ready once the engine has hung for `timeout` (never for zero). A device is then given up:
    /// everything waiting, and what the engine has taken, is refused. On the caller's thread a batch
    /// takes as long as it takes; until it is done the server is not ready.
    pub async fn stuck(&self, timeout: Duration) -> EngineStopped {
        let mut current = self.current.subscribe();
        loop {
            let generation = current.borrow_and_update().clone();
            let Some(generation) = generation else {
                // The sender lives as long as `self`.
                let _ = current.changed().await;
                continue;
            };
            let shared = &generation.shared;
            tokio::select! {
                () = shared.progress.stuck(timeout) => {}
                _ = current.changed() => continue,
            }
            if generation.is_on_device {
                self.enter(Phase::Lost);
                generation.give_up();
                return EngineStopped::Stuck(timeout);
            }
            tracing::error!(
                ?timeout,
                "the engine does not come back from a batch (--engine-timeout)"
            );
            shared.health.set_stuck(true);
            tokio::select! {
                () = shared.progress.moved() => {}
                _ = current.changed() => continue,
            }
            tracing::info!("the engine has come back");
            shared.health.set_stuck(false);
        }
    }

    /// Raises the limits that follow from the capacity, as it is known by now: what was measured at
    /// the start may have been a machine that was busy. Whether they are higher than before.
    pub(super) fn grow_limits(&self, generation: &Generation) -> bool {
        if self.limits.slo.is_zero() {
            return false;
        }
        let capacity = generation.shared.forecast.capacity(REQUEST_TOKENS);
        let (concurrency, room) = self.limits.for_capacity(Some(capacity));
        let admission = self.admission.grow(concurrency);
        let slots = self.slots.grow(room);
        admission || slots
    }

    /// Hears of each model that comes into use.
    pub(crate) fn models(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.current.subscribe()
    }

    pub(super) fn current(&self) -> Option<Arc<Generation>> {
        self.current.borrow().clone()
    }

    /// The model that answers requests.
    pub(super) fn serving(&self) -> Result<Arc<Generation>, Refusal> {
        match (self.phase(), self.current()) {
            (Phase::Ready | Phase::Draining, Some(generation)) => Ok(generation),
            (Phase::Lost, _) => Err(Refusal::Unhealthy),
            _ => Err(Refusal::Loading),
        }
    }

    /// Whether the model was ever ready.
    pub fn is_loaded(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// Where the classifier's life stands.
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Whether requests should go elsewhere although the model is loaded: its batches fail one after
    /// the other, or the engine does not come back.
    pub fn is_unwell(&self) -> bool {
        self.current()
            .is_some_and(|generation| generation.shared.health.is_unwell())
    }

    /// Says that the process is about to end; requests are still answered.
    pub fn drain(&self) {
        self.enter(Phase::Draining);
    }

    /// Takes no further requests; those admitted are answered, then the engine's thread ends.
    pub fn close(&self) {
        self.enter(Phase::Draining);
        self.closed.store(true, Ordering::SeqCst);
        if let Some(generation) = self.current() {
            generation.shared.queue.close();
        }
    }

    /// The phase only moves forward.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }
}
