//! The process of the scaler: its ports, from the start to the drain.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::certificates::Certificates;
use super::metrics::ScalerMetrics;
use super::registry::{RegistryBounds, WorkloadRegistry};
use super::service;
use super::trigger::{Defaults, Trigger};
use super::view::Staleness;
use super::workload::Polling;
use intentd_base::turns::Turns;
use intentd_transport::{
    BindError, ConnectionLimits, ConnectionPermits, Life, Listener, Port, Tls, TlsError, TlsFiles,
    descriptors, serve,
};

/// Most connections of KEDA. Its operator and its metrics server hold one each to an address.
const CONNECTIONS: usize = 128;

/// Most connections of scrapers and probes.
const ADMIN_CONNECTIONS: usize = 64;

/// Least bound on concurrent calls and streams on one connection. KEDA holds a stream for each trigger on
/// it, and calls beyond the bound wait in KEDA. The bound is therefore raised to two for each workload.
const STREAMS: usize = 128;

/// Most bytes of a call's headers.
const HEADER_BYTES: usize = 16 << 10;

/// Time for a call's headers, and for the TLS handshake.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without a call after which a connection is closed. It is longer than KEDA's polling interval.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// The settings of a scaler, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address for KEDA.
    pub address: SocketAddr,
    /// The address for operators, if any.
    pub admin_address: Option<SocketAddr>,
    /// Certificates for `address`.
    pub tls: Option<TlsFiles>,
    /// Defaults for triggers.
    pub defaults: Defaults,
    /// Time between two polling rounds of the replicas.
    pub interval: Duration,
    /// Time between two reads of a wake signal.
    pub wake_interval: Duration,
    /// Time for a replica's response.
    pub timeout: Duration,
    /// How long earlier values count.
    pub staleness: Staleness,
    /// Most addresses of a workload.
    pub replicas_max: usize,
    /// Most workloads that are watched at once.
    pub workloads_max: usize,
    /// Time without a call or stream after which a workload is evicted.
    pub forget_after: Duration,
    /// Time from the stop signal to the end.
    pub drain_timeout: Duration,
}

/// Why a scaler did not start or did not drain.
#[derive(Debug, thiserror::Error)]
pub enum ScalerError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates are invalid.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Calls were unanswered at the drain timeout.
    #[error("calls were still unanswered {0:?} after the signal to stop (--drain-timeout)")]
    DrainTimeout(Duration),
}

/// A scaler whose ports are bound.
#[derive(Debug)]
pub struct Running {
    /// The address for KEDA.
    pub address: Option<SocketAddr>,
    /// The address for operators.
    pub admin_address: Option<SocketAddr>,
    /// The certificates of the port for KEDA.
    pub certificates: Certificates,
    registry: Arc<WorkloadRegistry>,
    ports: JoinSet<()>,
    life: watch::Sender<Life>,
    drain_timeout: Duration,
    streams_max: u32,
}

/// Binds the ports and starts to watch the workload of the flags, if they name one. Must be called in a
/// runtime.
///
/// # Errors
/// When a port cannot be bound or the certificates are invalid.
pub fn start(config: &Config) -> Result<Running, ScalerError> {
    // Raises the limit of file descriptors, since each replica keeps a connection open.
    descriptors();
    let tls = config
        .tls
        .clone()
        .map(Tls::open_files)
        .transpose()?
        .map(Arc::new);
    let main = Listener::tcp(config.address, "--port")?;
    let admin = config
        .admin_address
        .map(|address| Listener::tcp(address, "--admin-port"));
    let admin = admin.transpose()?;
    let metrics = ScalerMetrics::new();
    let registry = Arc::new(registry(config, &metrics));
    let of_flags = Trigger::parse(&HashMap::new(), &config.defaults);
    if let Ok(trigger) = of_flags
        && let Err(full) = registry.pin(&trigger.watch)
    {
        tracing::warn!(%full, "the workload of the flags is not watched");
    }
    let (life, _) = watch::channel(Life::Open);
    let mut running = Running {
        address: main.address(),
        admin_address: admin.as_ref().and_then(Listener::address),
        certificates: Certificates::new(tls.clone()),
        registry: Arc::clone(&registry),
        ports: JoinSet::new(),
        life,
        drain_timeout: config.drain_timeout,
        streams_max: u32::try_from(STREAMS.max(2 * config.workloads_max)).unwrap_or(u32::MAX),
    };
    let scaler = service::ScalerService {
        registry: Arc::clone(&registry),
        defaults: config.defaults.clone(),
        life: running.life.subscribe(),
    };
    running.serve(
        BoundPort {
            name: "main",
            connections_max: CONNECTIONS,
            listener: main,
            tls,
            routes: service::routes(scaler, metrics.clone()),
        },
        &metrics,
    );
    if let Some(listener) = admin {
        running.serve(
            BoundPort {
                name: "admin",
                connections_max: ADMIN_CONNECTIONS,
                listener,
                tls: None,
                routes: admin_routes(registry, metrics.clone(), running.life.subscribe()),
            },
            &metrics,
        );
    }
    Ok(running)
}

fn registry(config: &Config, metrics: &ScalerMetrics) -> WorkloadRegistry {
    let polling = Polling {
        interval: config.interval,
        wake_interval: config.wake_interval,
        timeout: config.timeout,
        staleness: config.staleness,
        replicas_max: config.replicas_max,
        metrics: metrics.clone(),
    };
    let bounds = RegistryBounds {
        workloads_max: config.workloads_max,
        forget_after: config.forget_after,
    };
    WorkloadRegistry::new(polling, bounds)
}

/// A port of the scaler that is bound and not served yet.
struct BoundPort {
    /// Its name in metrics.
    name: &'static str,
    connections_max: usize,
    listener: Listener,
    tls: Option<Arc<Tls>>,
    routes: Router,
}

impl Running {
    fn serve(&mut self, bound: BoundPort, metrics: &ScalerMetrics) {
        let BoundPort {
            name,
            connections_max,
            listener,
            tls,
            routes,
        } = bound;
        let port = Port {
            listener,
            routes,
            tls,
            limits: ConnectionLimits {
                connections_max,
                streams_max: self.streams_max,
                header_bytes_max: HEADER_BYTES,
                header_timeout: Some(HEADER_TIMEOUT),
                idle_timeout: Some(IDLE_TIMEOUT),
                suppresses_continue: false,
            },
            permits: ConnectionPermits::new(connections_max),
            open: metrics.connections.with_label_values(&[name]),
            refused: metrics.connections_refused.with_label_values(&[name]),
            turns: Turns::beside_one_core(),
        };
        self.ports.spawn(serve(port, self.life.subscribe()));
    }

    /// Serves until `signal` is ready, then ends streams, answers pending calls and returns.
    ///
    /// # Errors
    /// When calls are still unanswered at the drain timeout.
    pub async fn until(mut self, signal: impl Future<Output = ()>) -> Result<(), ScalerError> {
        tokio::select! {
            () = signal => {}
            () = self.registry.evict_periodically() => {}
            () = self.certificates.clone().reload_periodically() => {}
        }
        tracing::info!("draining");
        // Sending fails only if all ports are closed already.
        let _ = self.life.send(Life::Closing);
        let all = async { while self.ports.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(self.drain_timeout, all).await;
        drained.map_err(|_| ScalerError::DrainTimeout(self.drain_timeout))
    }
}

/// The routes of the operators' port: metrics and health. Ready means that calls of KEDA are answered,
/// whatever the replicas do.
fn admin_routes(
    registry: Arc<WorkloadRegistry>,
    metrics: ScalerMetrics,
    life: watch::Receiver<Life>,
) -> Router {
    let scrape = async move || {
        let (content_type, text) = metrics.render(&registry.totals());
        ([(header::CONTENT_TYPE, content_type)], text).into_response()
    };
    let ready = move || async move {
        if *life.borrow() == Life::Closing {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else {
            (StatusCode::OK, "ready\n")
        }
    };
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
}
