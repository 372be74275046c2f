//! Wires the stages: ports, model, routes, and the order in which they end.
//!
//! The ports are bound first, so that a client that comes early hears 503 and not silence. On
//! stop, the ports are closed, then everything admitted is answered, then the engine's thread
//! ends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::api;
use crate::config::Config;
use crate::engine::{self, Engine, LoadError, Loaded};
use crate::metrics::Metrics;
use crate::model::Checkpoint;
use crate::serving::{Classifier, EngineStopped};

/// Why a server did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port cannot be bound.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The engine's thread cannot be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The model could not be loaded or the engine broke.
    #[error(transparent)]
    Engine(#[from] EngineStopped),
    /// Admitted requests did not finish in time.
    #[error("requests were still unanswered {0:?} after the signal to stop (--drain-timeout)")]
    DrainTimeout(Duration),
}

impl ServerError {
    /// Whether the engine broke while it served: a new process may do better.
    pub fn is_engine_lost(&self) -> bool {
        use EngineStopped::{Engine, PanickedServing, Stuck};
        matches!(self, Self::Engine(Engine(_) | PanickedServing | Stuck(_)))
    }
}

/// A server whose ports are bound and whose model is loading or loaded.
#[derive(Debug)]
pub struct Running {
    /// Where predictions are served.
    pub address: SocketAddr,
    /// Where operators look.
    pub admin_address: Option<SocketAddr>,
    /// The model behind its queue.
    pub classifier: Arc<Classifier>,
    engine: JoinHandle<()>,
    engine_ended: oneshot::Receiver<Result<(), EngineStopped>>,
    connections: JoinSet<()>,
    stop: watch::Sender<bool>,
    engine_timeout: Duration,
    drain_timeout: Duration,
}

/// Binds the ports and begins to load the model that `config` names.
///
/// # Errors
/// When a port or a thread is not to be had.
pub async fn start(config: &Config) -> Result<Running, ServerError> {
    let (model, limits) = (config.model.clone(), config.limits.batch);
    let metrics = Metrics::new();
    let startup = metrics.startup_seconds.clone();
    let prepare = move || {
        let start = Instant::now();
        let checkpoint = Checkpoint::open_or_embedded(model.model.as_deref())?;
        let opened = start.elapsed();
        let loaded = engine::load(&checkpoint, model.engine_options(limits))?;
        let Loaded { engine, place, .. } = loaded;
        let parts = [("checkpoint", opened)].into_iter().chain(loaded.phases);
        for (phase, took) in parts.chain([("total", start.elapsed())]) {
            tracing::debug!(phase, ?took, "startup");
            let gauge = startup.with_label_values(&[phase]);
            gauge.set(took.as_secs_f64());
        }
        tracing::info!(took = ?start.elapsed(), "running on {place}");
        Ok((checkpoint, engine))
    };
    start_measured(config, metrics, prepare).await
}

/// As [`start`], with an engine of the caller's.
///
/// # Errors
/// When a port or a thread is not to be had.
pub async fn start_with<F>(config: &Config, prepare: F) -> Result<Running, ServerError>
where
    F: FnOnce() -> Result<(Checkpoint, Box<dyn Engine>), LoadError> + Send + 'static,
{
    start_measured(config, Metrics::new(), prepare).await
}

async fn start_measured<F>(
    config: &Config,
    metrics: Metrics,
    prepare: F,
) -> Result<Running, ServerError>
where
    F: FnOnce() -> Result<(Checkpoint, Box<dyn Engine>), LoadError> + Send + 'static,
{
    let main = bind(config.address, "--port").await?;
    let admin = match config.admin_address {
        Some(address) => Some(bind(address, "--admin-port").await?),
        None => None,
    };
    let classifier = Classifier::new(config.limits, metrics);
    let (ended, engine_ended) = oneshot::channel();
    let engine = classifier
        .start(prepare, ended)
        .map_err(ServerError::Thread)?;
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let address = main.local_addr().unwrap_or(config.address);
    let admin_address = admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let routes = api::main_routes(Arc::clone(&classifier), config.body_bytes_max);
    connections.spawn(serve(main, routes, stopped.clone()));
    if let Some(admin) = admin {
        let routes = api::admin_routes(Arc::clone(&classifier));
        connections.spawn(serve(admin, routes, stopped));
    }
    Ok(Running {
        address,
        admin_address,
        classifier,
        engine,
        engine_ended,
        connections,
        stop,
        engine_timeout: config.engine_timeout,
        drain_timeout: config.drain_timeout,
    })
}

impl Running {
    /// Serves until `signal` is ready, then answers what was admitted and ends.
    ///
    /// # Errors
    /// When the model cannot be loaded, when the engine is lost, or when requests are still
    /// unanswered at the drain timeout.
    pub async fn until(mut self, signal: impl Future<Output = ()>) -> Result<(), ServerError> {
        let mut ended = tokio::select! {
            () = signal => None,
            result = &mut self.engine_ended => Some(result),
            stopped = self.classifier.stuck(self.engine_timeout) => Some(Ok(Err(stopped))),
        };
        tracing::info!("draining");
        self.classifier.drain();
        // Nobody listens only if the ports are closed already.
        let _ = self.stop.send(true);
        let timeout = self.drain_timeout;
        let drained = tokio::select! {
            drained = drain(&mut self.connections, timeout) => drained,
            stopped = self.classifier.stuck(self.engine_timeout), if ended.is_none() => {
                ended = Some(Ok(Err(stopped)));
                // Everybody has been refused; the refusals still have to be sent.
                drain(&mut self.connections, timeout).await
            }
        };
        self.classifier.close();
        let unanswered = self.classifier.metrics().in_flight.get() > 0;
        if ended.is_none() && !drained && unanswered {
            return Err(ServerError::DrainTimeout(timeout));
        }
        if !self.classifier.is_loaded() && ended.is_none() {
            // Nothing was admitted; loading on would only keep the process from its end.
            return Ok(());
        }
        let ended = match ended {
            Some(result) => result,
            // Only batches of clients that have left can still run; nobody waits for these.
            None => match tokio::time::timeout(timeout, self.engine_ended).await {
                Ok(result) => result,
                Err(_) => return Ok(()),
            },
        };
        ended.unwrap_or(Err(EngineStopped::PanickedServing))?;
        // The thread has sent its last word; this waits for its end only.
        let _ = self.engine.join();
        Ok(())
    }
}

/// Whether all connections ended in time.
async fn drain(connections: &mut JoinSet<()>, timeout: Duration) -> bool {
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(timeout, all).await.is_ok()
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Bind {
            address,
            flag,
            source,
        })
}

async fn serve(listener: TcpListener, routes: Router, mut stopped: watch::Receiver<bool>) {
    use axum::serve::ListenerExt;
    let listener = listener.tap_io(|stream| {
        // Answers are one small write; waiting to join them with a next one only adds latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let stop = async move {
        // An error means that the sender is gone, and then it is time to stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    if let Err(error) = axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await
    {
        tracing::error!(%error, "port closed");
    }
}
