//! Loads models and serves them, each on its own engine thread.

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
use intentd_base::threads::{EngineThread, EngineWork};

/// The result of loading: a model and the engine with its weights.
pub type Prepared = Result<(Checkpoint, Box<dyn Engine>), LoadError>;

/// Receives the result of the current model's engine thread when it ends.
pub(crate) type Ends = mpsc::UnboundedReceiver<Result<(), EngineStopped>>;

/// The lifecycle: the model in use and the phase.
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
    /// One permit, so that models are loaded one at a time.
    loading: Arc<Semaphore>,
    ended: mpsc::UnboundedSender<Result<(), EngineStopped>>,
}

impl Lifecycle {
    /// A lifecycle without a model.
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

    /// Starts the engine's thread, which calls `prepare` and then serves until [`close`](Self::close).
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub(crate) fn start<F>(self: &Arc<Self>, prepare: F) -> std::io::Result<()>
    where
        F: FnOnce() -> Prepared + Send + 'static,
    {
        let (loaded, _) = oneshot::channel();
        // The permit is free: nothing else uses the classifier yet.
        let permit = Arc::clone(&self.loading).try_acquire_owned().ok();
        self.spawn(prepare, loaded, permit)
    }

    /// Replaces the model with the one that `prepare` loads. No request is lost: each is answered by the model
    /// that tokenized it.
    ///
    /// # Errors
    /// See [`ReloadError`]. The old model then stays in use.
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

    /// Starts a thread that loads a model and serves it. The result of loading is sent to `loaded`. The permit is
    /// held until then, even if the receiver is gone.
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
            let engine = EngineThread::enter(EngineWork::Loading);
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
                    // The receiver may be gone. The model is in use all the same.
                    let _ = loaded.send(Ok(()));
                    engine.turn_to(EngineWork::Batches);
                    lifecycle.serve(&generation, batcher);
                }
                Err(stopped) if lifecycle.is_loaded() => {
                    let _ = loaded.send(Err(stopped));
                }
                Err(stopped) => {
                    lifecycle.phase.enter(Phase::Lost);
                    // The receiver is gone if the process is ending anyway.
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
            // It answers what it has. Texts that come too late for it go to the new one.
            before.pipeline.queue.close();
        }
        if self.closed.load(Ordering::SeqCst) {
            // The process is ending, and `close` may have seen only the old generation.
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
        // However this thread ends, no request is left waiting for it.
        generation.give_up();
        if result.is_err() && generation.is_on_device {
            // Dropping it could block on a device that does not respond. On the CPU, dropping it tells waiting
            // requests that there will be no reply.
            std::mem::forget(batcher);
        } else {
            drop(batcher);
        }
        match result {
            result if is_current => {
                // The receiver is gone if the process is ending anyway.
                let _ = self.ended.send(result);
            }
            Ok(()) => tracing::info!("the model before has answered its last request"),
            Err(stopped) => tracing::error!(%stopped, "the model before ended early"),
        }
    }

    /// Waits until the engine has hung for `timeout`; for ever if there is none. A device is then given up: all
    /// waiting texts and those in the engine are refused. A CPU engine cannot be given up: the server is
    /// unready until the engine returns.
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
                () = pipeline.progress.advanced() => {}
                _ = current.changed() => continue,
            }
            tracing::info!("the engine has come back");
            pipeline.health.set_stuck(false);
        }
    }

    /// A receiver that is notified of each new model.
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

    /// Whether a model has been loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// The current phase.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether requests should go to other replicas although the model is loaded: consecutive batches fail, or
    /// the engine hangs.
    pub(crate) fn is_unwell(&self) -> bool {
        self.current()
            .is_some_and(|generation| generation.pipeline.health.is_unwell())
    }

    /// Enters the draining phase. Requests are still answered.
    pub(crate) fn drain(&self) {
        self.phase.enter(Phase::Draining);
    }

    /// Stops accepting requests. The engine's thread ends once the admitted ones are answered.
    pub(crate) fn close(&self) {
        self.phase.enter(Phase::Draining);
        self.closed.store(true, Ordering::SeqCst);
        if let Some(generation) = self.current() {
            generation.pipeline.queue.close();
        }
    }
}
