//! Loading models and serving them, one engine thread for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::generation::Generation;
use super::phase::{CurrentPhase, Phase};
use super::stopped::{EngineStopped, ReloadError};
use crate::engine::{Engine, LoadError};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::Checkpoint;
use crate::serving::admission::Admission;
use crate::serving::batching::Batcher;
use crate::serving::limits::Limits;

/// What loading gives: a model and the engine that has its weights.
pub type Prepared = Result<(Checkpoint, Box<dyn Engine>), LoadError>;

/// Hears how the engine's thread of the model in use ended.
pub(crate) type Ends = mpsc::UnboundedReceiver<Result<(), EngineStopped>>;

/// The model in use and the phase that it is in.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    limits: Arc<Limits>,
    metrics: Metrics,
    admission: Arc<Admission>,
    /// The model that answers; `None` until the first is loaded.
    current: watch::Sender<Option<Arc<Generation>>>,
    generations: AtomicU64,
    phase: CurrentPhase,
    closed: AtomicBool,
    /// One permit: models are loaded one after the other.
    loading: Arc<Semaphore>,
    ended: mpsc::UnboundedSender<Result<(), EngineStopped>>,
}

impl Lifecycle {
    /// Without a model.
    pub(crate) fn new(
        limits: Arc<Limits>,
        metrics: Metrics,
        admission: Arc<Admission>,
    ) -> (Arc<Self>, Ends) {
        let (ended, ends) = mpsc::unbounded_channel();
        let lifecycle = Arc::new(Self {
            limits,
            metrics,
            admission,
            current: watch::Sender::new(None),
            generations: AtomicU64::new(0),
            phase: CurrentPhase::new(),
            closed: AtomicBool::new(false),
            loading: Arc::new(Semaphore::new(1)),
            ended,
        });
        (lifecycle, ends)
    }

    /// Starts the engine's thread: it calls `prepare`, then serves until [`close`](Self::close).
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start<F>(self: &Arc<Self>, prepare: F) -> std::io::Result<()>
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
    pub(crate) async fn reload<F>(self: &Arc<Self>, prepare: F) -> Result<(), ReloadError>
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
        let lifecycle = Arc::clone(self);
        let is_first = !self.is_loaded();
        let run = move || {
            let load = std::panic::AssertUnwindSafe(|| lifecycle.load(prepare));
            let load = std::panic::catch_unwind(load);
            if !is_first {
                let label = if matches!(load, Ok(Ok(_))) {
                    "done"
                } else {
                    "failed"
                };
                lifecycle.metrics.reloads.with_label_values(&[label]).inc();
            }
            drop(permit);
            match load.unwrap_or(Err(EngineStopped::PanickedLoading)) {
                Ok((generation, batcher)) => {
                    // Whoever asked may have left; the model is in use all the same.
                    let _ = loaded.send(Ok(()));
                    lifecycle.serve(&generation, batcher);
                }
                Err(stopped) if lifecycle.is_loaded() => {
                    let _ = loaded.send(Err(stopped));
                }
                Err(stopped) => {
                    lifecycle.phase.enter(Phase::Lost);
                    // Nobody listens any more when the process is ending anyway.
                    let _ = lifecycle.ended.send(Err(stopped));
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
        let slots = self.admission.slots();
        let made = Generation::new(number, prepared, &self.limits, slots, &self.metrics);
        let (generation, batcher) = made?;
        self.admission.begin(&generation.forecast);
        let before = self.current.send_replace(Some(Arc::clone(&generation)));
        self.phase.enter(Phase::Ready);
        if let Some(before) = before {
            // It answers what it has; what comes too late for it goes to the new one.
            before.pipeline.queue.close();
        }
        if self.closed.load(Ordering::SeqCst) {
            // The process ends, and whoever closed may have seen the one before only.
            generation.pipeline.queue.close();
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
            self.phase.enter(Phase::Lost);
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

    /// Ready once the engine has hung for `timeout` , if there is one. A device is then given up:
    /// everything waiting, and what the engine has taken, is refused. On the caller's thread a batch
    /// takes as long as it takes; until it is done the server is not ready.
    pub(crate) async fn stuck(&self, timeout: Option<Duration>) -> EngineStopped {
        let Some(timeout) = timeout else {
            return std::future::pending().await;
        };
        let mut current = self.current.subscribe();
        loop {
            let generation = current.borrow_and_update().clone();
            let Some(generation) = generation else {
                // The sender lives as long as `self`.
                let _ = current.changed().await;
                continue;
            };
            let pipeline = &generation.pipeline;
            tokio::select! {
                () = pipeline.progress.stuck(timeout) => {}
                _ = current.changed() => continue,
            }
            if generation.is_on_device {
                self.phase.enter(Phase::Lost);
                generation.give_up();
                return EngineStopped::Stuck(timeout);
            }
            tracing::error!(
                ?timeout,
                "the engine does not come back from a batch (--engine-timeout)"
            );
            pipeline.health.set_stuck(true);
            tokio::select! {
                () = pipeline.progress.moved() => {}
                _ = current.changed() => continue,
            }
            tracing::info!("the engine has come back");
            pipeline.health.set_stuck(false);
        }
    }

    /// Hears of each model that comes into use.
    pub(crate) fn models(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.current.subscribe()
    }

    pub(crate) fn current(&self) -> Option<Arc<Generation>> {
        self.current.borrow().clone()
    }

    /// The model that answers requests.
    pub(crate) fn serving(&self) -> Result<Arc<Generation>, Refusal> {
        match (self.phase(), self.current()) {
            (Phase::Ready | Phase::Draining, Some(generation)) => Ok(generation),
            (Phase::Lost, _) => Err(Refusal::Unhealthy),
            _ => Err(Refusal::Loading),
        }
    }

    /// Whether the model was ever ready.
    pub(crate) fn is_loaded(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// The phase.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether requests should go elsewhere although the model is loaded: its batches fail one after
    /// the other, or the engine does not come back.
    pub(crate) fn is_unwell(&self) -> bool {
        self.current()
            .is_some_and(|generation| generation.pipeline.health.is_unwell())
    }

    /// Says that the process is about to end; requests are still answered.
    pub(crate) fn drain(&self) {
        self.phase.enter(Phase::Draining);
    }

    /// Takes no further requests; those admitted are answered, then the engine's thread ends.
    pub(crate) fn close(&self) {
        self.phase.enter(Phase::Draining);
        self.closed.store(true, Ordering::SeqCst);
        if let Some(generation) = self.current() {
            generation.pipeline.queue.close();
        }
    }
}
