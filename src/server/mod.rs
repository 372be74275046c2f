//! Wires the stages: ports, model, routes, and the order in which they end.
//!
//! The ports are bound first, so that a client that comes early hears 503 and not silence. On
//! stop, readiness goes first, then, after the lame-duck delay, the ports are closed, then
//! everything admitted is answered, then the engine's thread ends.

mod reading;
mod rehearsal;
mod reload;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::reading::Reading;
use self::reload::Files;
pub use self::reload::Reloader;
use crate::api;
use crate::autoscale::Hints;
use crate::config::Config;
use crate::engine::{self, Loaded};
use crate::metrics::Metrics;
use crate::model::Checkpoint;
use crate::serving::{Classifier, EngineStopped, Prepared, Rehearsal};
use crate::trace::{Exporter, Tracing};
use crate::transport::{BindError, ConnectionLimits, Life, Listener, Port, Room, Tls, serve};

/// Connections of the operators' port: scrapers and probes, whatever the main port is full of.
const ADMIN_CONNECTIONS: usize = 256;

/// Time for the last spans to reach their collector.
const EXPORT: Duration = Duration::from_secs(2);

/// Why a server did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::transport::TlsError),
    /// The file of keys cannot be used.
    #[error(transparent)]
    Keys(#[from] api::KeysError),
    /// The engine's thread cannot be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The model could not be loaded or the engine broke.
    #[error(transparent)]
    Engine(#[from] EngineStopped),
    /// Kafka cannot be read with these settings.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] crate::events::ClientError),
    /// Kafka will not be read any more by this process.
    #[error("Kafka cannot be read any more: {0}")]
    Unreadable(String),
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
    /// Where predictions are served over TCP, if they are.
    pub address: Option<SocketAddr>,
    /// Where operators look.
    pub admin_address: Option<SocketAddr>,
    /// The model behind its queue.
    pub classifier: Arc<Classifier>,
    /// What autoscalers are told.
    pub hints: Arc<Hints>,
    /// Loads model, certificates and keys again.
    pub reloader: Reloader,
    engine_ended: mpsc::UnboundedReceiver<Result<(), EngineStopped>>,
    ports: JoinSet<()>,
    exporter: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
    reading: Reading,
    life: watch::Sender<Life>,
    engine_timeout: Duration,
    lame_duck: Duration,
    drain_timeout: Duration,
}

/// Binds the ports and begins to load the model that `config` names. To be called in a runtime.
///
/// # Errors
/// When a port or a thread is not to be had, or a file that a flag names cannot be used.
pub fn start(config: &Config) -> Result<Running, ServerError> {
    let metrics = Metrics::new();
    let load = loader(config, &metrics);
    let first = Arc::clone(&load);
    start_measured(config, metrics, move || first(), load)
}

/// As [`start`], with an engine of the caller's for the model that is loaded first.
///
/// # Errors
/// As [`start`].
pub fn start_with<F>(config: &Config, prepare: F) -> Result<Running, ServerError>
where
    F: FnOnce() -> Prepared + Send + 'static,
{
    let metrics = Metrics::new();
    let load = loader(config, &metrics);
    start_measured(config, metrics, prepare, load)
}

type Load = Arc<dyn Fn() -> Prepared + Send + Sync>;

/// Loads the model that `config` names, and publishes how long its parts took.
fn loader(config: &Config, metrics: &Metrics) -> Load {
    let (model, limits) = (config.model.clone(), config.limits.batch);
    let startup = metrics.startup_seconds.clone();
    Arc::new(move || {
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
    })
}

fn start_measured<F>(
    config: &Config,
    metrics: Metrics,
    first: F,
    load: Load,
) -> Result<Running, ServerError>
where
    F: FnOnce() -> Prepared + Send + 'static,
{
    let files = Files::open(config)?;
    let mut mains = Vec::new();
    if let Some(address) = config.address {
        mains.push(Listener::tcp(address, "--port")?);
    }
    if let Some(path) = &config.unix_socket {
        mains.push(Listener::unix(path, "--unix-socket")?);
    }
    let admin = config
        .admin_address
        .map(|address| Listener::tcp(address, "--admin-port"));
    let admin = admin.transpose()?;
    let (tracing, exporter) = tracing(config, &metrics);
    let (classifier, engine_ended) = Classifier::new(config.limits.clone(), metrics);
    let hints = Hints::new(config.hints.clone());
    let (runtime, settings) = (Handle::current(), config.surfaces.clone());
    let told = Arc::clone(&hints);
    classifier.rehearse_with(Rehearsal(Arc::new(move |twin| {
        if let Some(rehearsed) = rehearsal::rehearse(&runtime, twin, (&settings, &told)) {
            told.rehearse(rehearsed);
        }
    })));
    classifier.start(first).map_err(ServerError::Thread)?;
    let (life, _) = watch::channel(Life::Open);
    let mut running = Running {
        address: mains.iter().find_map(Listener::address),
        admin_address: admin.as_ref().and_then(Listener::address),
        reloader: Reloader::new(Arc::clone(&classifier), load, files),
        classifier,
        hints,
        engine_ended,
        ports: JoinSet::new(),
        exporter,
        follower: None,
        reading: Reading::default(),
        life,
        // The watchdog says zero for no limit.
        engine_timeout: config.engine_timeout.unwrap_or(Duration::ZERO),
        lame_duck: config.lame_duck,
        drain_timeout: config.drain_timeout,
    };
    running.reading = Reading::start(config, &running.classifier)?;
    // The exporter ends with the last route that has it.
    let room = Room::new(config.connections.connections_max);
    for listener in mains {
        running.serve_main(listener, config, (tracing.clone(), room.clone()));
    }
    if let Some(listener) = admin {
        running.serve_admin(listener, config);
    }
    let hints = Arc::clone(&running.hints);
    running.follower = Some(tokio::spawn(hints.follow(Arc::clone(&running.classifier))));
    running
        .ports
        .spawn(running.reloader.clone().watch(running.life.subscribe()));
    Ok(running)
}

/// What is done about traces: nothing when neither a collector nor the log wants them.
fn tracing(config: &Config, metrics: &Metrics) -> (Option<Tracing>, Option<JoinHandle<()>>) {
    let args = &config.trace;
    let started = args.otlp_endpoint.clone().map(|endpoint| {
        let spans = metrics.trace_spans.clone();
        Exporter::start(endpoint, args.otlp_service_name.clone(), spans)
    });
    let (exporter, task) = started.unzip();
    let is_wanted = exporter.is_some() || tracing::enabled!(tracing::Level::DEBUG);
    let sample = args.otlp_sample;
    (is_wanted.then_some(Tracing { exporter, sample }), task)
}

impl Running {
    fn served(&self) -> api::Served {
        (Arc::clone(&self.classifier), Arc::clone(&self.hints))
    }

    fn serve_main(
        &mut self,
        listener: Listener,
        config: &Config,
        (tracing, room): (Option<Tracing>, Room),
    ) {
        let mut settings = config.surfaces.clone();
        settings.keys = self.reloader.keys();
        settings.tracing = tracing;
        settings.life = Some(self.life.subscribe());
        let routes = api::main_routes(self.served(), &settings);
        let tls = self.reloader.tls();
        self.serve("main", listener, routes, tls, (config.connections, room));
    }

    fn serve_admin(&mut self, listener: Listener, config: &Config) {
        let mut settings = config.surfaces.clone();
        settings.keys = self.reloader.keys();
        let reloader = self.reloader.clone();
        let reload: api::Reload = Arc::new(move || {
            let reloader = reloader.clone();
            Box::pin(async move { reloader.reload().await })
        });
        let routes = api::admin_routes(self.served(), &settings, reload);
        let limits = ConnectionLimits {
            connections_max: ADMIN_CONNECTIONS,
            ..config.connections
        };
        let room = Room::new(ADMIN_CONNECTIONS);
        self.serve("admin", listener, routes, None, (limits, room));
    }

    fn serve(
        &mut self,
        name: &str,
        listener: Listener,
        routes: axum::Router,
        tls: Option<Arc<Tls>>,
        (limits, room): (ConnectionLimits, Room),
    ) {
        let metrics = self.classifier.metrics();
        let port = Port {
            listener,
            routes,
            tls,
            limits,
            room,
            open: metrics.connections.with_label_values(&[name]),
            refused: metrics.connections_refused.with_label_values(&[name]),
            turns: Arc::clone(self.classifier.turns()),
        };
        self.ports.spawn(serve(port, self.life.subscribe()));
    }

    /// Serves until `signal` is ready, then answers what was admitted and ends.
    ///
    /// # Errors
    /// When the model cannot be loaded, when the engine is lost, or when requests are still
    /// unanswered at the drain timeout.
    pub async fn until(mut self, signal: impl Future<Output = ()>) -> Result<(), ServerError> {
        let mut unread = None;
        let mut ended = tokio::select! {
            () = signal => None,
            why = self.reading.failed() => {
                unread = Some(why);
                None
            }
            result = self.engine_ended.recv() => Some(result),
            stopped = self.classifier.stuck(self.engine_timeout) => Some(Some(Err(stopped))),
        };
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        self.classifier.drain();
        let reading = std::mem::take(&mut self.reading);
        let reading = reading.stop(deadline, ended.is_none());
        if ended.is_none() && self.classifier.is_loaded() {
            ended = self.limp(deadline).await;
        }
        tracing::info!("draining");
        // Nobody listens only if the ports are closed already.
        let _ = self.life.send(Life::Closing);
        let drained = tokio::select! {
            drained = drain(&mut self.ports, deadline) => drained,
            stopped = self.classifier.stuck(self.engine_timeout), if ended.is_none() => {
                ended = Some(Some(Err(stopped)));
                // Everybody has been refused; the refusals still have to be sent.
                let deadline = tokio::time::Instant::now() + self.drain_timeout;
                drain(&mut self.ports, deadline).await
            }
        };
        if drained {
            self.export().await;
        }
        if let Some(reading) = reading {
            // It ends by its own deadline.
            let _ = reading.await;
        }
        self.classifier.close();
        let unanswered = self.classifier.metrics().in_flight.get() > 0;
        if ended.is_none() && !drained && unanswered {
            return Err(ServerError::DrainTimeout(self.drain_timeout));
        }
        let read = unread.map_or(Ok(()), |why| Err(ServerError::Unreadable(why)));
        if !self.classifier.is_loaded() && ended.is_none() {
            // Nothing was admitted; loading on would only keep the process from its end.
            return read;
        }
        let ended = match ended {
            Some(result) => result,
            // Only batches of clients that have left can still run; nobody waits for these.
            None => match tokio::time::timeout_at(deadline, self.engine_ended.recv()).await {
                Ok(result) => result,
                Err(_) => return read,
            },
        };
        ended.unwrap_or(Err(EngineStopped::PanickedServing))?;
        read
    }

    /// The last spans are sent once the last connection has ended.
    async fn export(&mut self) {
        if let Some(exporter) = self.exporter.take() {
            // A collector that is away does not keep the process.
            let _ = tokio::time::timeout(EXPORT, exporter).await;
        }
    }

    /// Serves on for a while, not ready any more: whoever balances the load needs time to notice
    /// before the ports close. Returns early when the engine ends.
    async fn limp(
        &mut self,
        deadline: tokio::time::Instant,
    ) -> Option<Option<Result<(), EngineStopped>>> {
        if self.lame_duck.is_zero() {
            return None;
        }
        tracing::info!(delay = ?self.lame_duck, "not ready any more; closing after the lame-duck delay");
        // Nobody listens only if the ports are closed already.
        let _ = self.life.send(Life::LameDuck);
        let until = deadline.min(tokio::time::Instant::now() + self.lame_duck);
        tokio::select! {
            () = tokio::time::sleep_until(until) => None,
            result = self.engine_ended.recv() => Some(result),
            stopped = self.classifier.stuck(self.engine_timeout) => Some(Some(Err(stopped))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

/// Whether all ports ended in time.
async fn drain(ports: &mut JoinSet<()>, deadline: tokio::time::Instant) -> bool {
    let all = async { while ports.join_next().await.is_some() {} };
    tokio::time::timeout_at(deadline, all).await.is_ok()
}
