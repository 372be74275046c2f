//! `intentd scaler`: tells KEDA how many replicas a workload needs.
//!
//! KEDA asks an external scaler for one number of a whole workload. Each replica publishes its own
//! demand; this process, which is none of them, adds them up:
//!
//! ```text
//! flags, metadata of a trigger
//!      │
//! trigger             what is watched, and which target is aimed at
//!      │
//! watches             one workload for all triggers that ask for the same; bounded
//!      │
//! workload            tasks: place (DNS), link (HTTP), wake (Prometheus, Kafka), each interval
//!      │  answers
//! tally, view         the sum, and what is known of it for how long; pure
//!      │
//! service             the five calls of KEDA, answered from the view
//! ```
//!
//! It never says a number that it does not know, and never "inactive" when it does not know that: see
//! `view.rs`. It holds no model and, beside the view, no state: started anew, it knows as much after a
//! round. `replay.rs` follows a workload through answers of whoever calls, without tasks and sockets.

#[cfg(feature = "kafka")]
mod kafka;
mod link;
mod metrics;
mod place;
mod replay;
mod report;
mod service;
mod tally;
mod trigger;
mod view;
mod wake;
mod watches;
mod workload;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::metrics::Metrics;
pub use self::place::Place;
pub use self::replay::{Asked, Followed, Known, Round, read_prometheus, read_report, read_trigger};
pub use self::trigger::Defaults;
pub(crate) use self::trigger::NO_KAFKA;
use self::trigger::Trigger;
pub use self::view::Patience;
pub use self::wake::PrometheusUrl;
use self::watches::{Bounds, Watches};
use self::workload::Common;
use crate::transport::{
    BindError, ConnectionLimits, Life, Listener, Port, Room, Tls, TlsError, TlsFiles, descriptors,
    serve,
};
use crate::turns::Turns;

/// Messages and calls of KEDA, made from `proto/externalscaler/externalscaler.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated"
)]
pub mod proto {
    tonic::include_proto!("externalscaler");
}

/// Connections of KEDA: its operator and its metrics server hold one each to an address.
const CONNECTIONS: usize = 128;

/// Connections of scrapers and probes.
const ADMIN_CONNECTIONS: usize = 64;

/// Calls and streams at once on one connection. KEDA has a stream for each trigger on it, and those beyond
/// the bound wait there, calls included: so there are two for each workload where that is more.
const STREAMS: usize = 128;

/// Bytes of a call's headers.
const HEADER_BYTES: usize = 16 << 10;

/// Time for a call's headers, and for the handshake of TLS.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without a call after which a connection ends: longer than the interval at which KEDA asks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// How often certificates are looked at: Kubernetes replaces mounted secrets without a signal.
const LOOK: Duration = Duration::from_secs(10);

/// Checked settings of a scaler.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where KEDA asks.
    pub address: SocketAddr,
    /// Where operators look, if anywhere.
    pub admin_address: Option<SocketAddr>,
    /// Certificates for `address`.
    pub tls: Option<TlsFiles>,
    /// What triggers get that say nothing else.
    pub defaults: Defaults,
    /// Time between two rounds.
    pub interval: Duration,
    /// Time between two looks at a sign of work.
    pub wake_interval: Duration,
    /// Time for a replica's answer.
    pub timeout: Duration,
    /// How long what was known counts.
    pub patience: Patience,
    /// Addresses that a workload may have.
    pub replicas_max: usize,
    /// Workloads that are watched at once.
    pub workloads_max: usize,
    /// Time after which a workload is dropped that nobody asks about.
    pub forget_after: Duration,
    /// Time from the signal to stop to the end.
    pub drain_timeout: Duration,
}

/// Why a scaler did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ScalerError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Calls did not end in time.
    #[error("calls were still unanswered {0:?} after the signal to stop (--drain-timeout)")]
    DrainTimeout(Duration),
}

/// A scaler whose ports are bound.
#[derive(Debug)]
pub struct Running {
    /// Where KEDA asks.
    pub address: Option<SocketAddr>,
    /// Where operators look.
    pub admin_address: Option<SocketAddr>,
    /// Replaces its certificates.
    pub certificates: Certificates,
    watches: Arc<Watches>,
    ports: JoinSet<()>,
    life: watch::Sender<Life>,
    drain_timeout: Duration,
    streams_max: u32,
}

/// The certificates of a running scaler.
#[derive(Debug, Clone)]
pub struct Certificates(Option<Arc<Tls>>);

impl Certificates {
    /// Reads them again, off the runtime. Whether anything changed; what cannot be used leaves those
    /// before in use.
    ///
    /// # Errors
    /// See [`TlsError`], in words.
    pub async fn reload(&self) -> Result<bool, String> {
        let Some(tls) = self.0.clone() else {
            return Ok(false);
        };
        let outcome = tokio::task::spawn_blocking(move || tls.reload()).await;
        match outcome {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }

    /// Looks after them; never ends.
    async fn look_after(self) {
        let mut known = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let outcome = self.reload().await;
            match &outcome {
                Ok(true) => tracing::info!("certificates replaced"),
                // What stays wrong is said once.
                Err(what) if known.as_ref() != Some(what) => {
                    tracing::error!(what, "certificates not replaced");
                }
                _ => {}
            }
            known = outcome.err();
        }
    }
}

/// Binds the ports and begins to watch the workload of the flags, if they name one. To be called in a
/// runtime.
///
/// # Errors
/// When a port is not to be had or certificates cannot be used.
pub fn start(config: &Config) -> Result<Running, ScalerError> {
    // Each replica that answers keeps a connection.
    descriptors();
    let tls = config.tls.clone().map(Tls::open_files).transpose()?;
    let tls = tls.map(Arc::new);
    let main = Listener::tcp(config.address, "--port")?;
    let admin = config
        .admin_address
        .map(|address| Listener::tcp(address, "--admin-port"));
    let admin = admin.transpose()?;
    let metrics = Metrics::new();
    let common = Common::new(
        (config.interval, config.wake_interval, config.timeout),
        config.patience,
        config.replicas_max,
        metrics.clone(),
    );
    let bounds = Bounds {
        workloads_max: config.workloads_max,
        forget_after: config.forget_after,
    };
    let watches = Arc::new(Watches::new(common, bounds));
    let own = Trigger::read(&HashMap::new(), &config.defaults);
    if let Ok(own) = own
        && let Err(full) = watches.keep(&own.watch)
    {
        tracing::warn!(%full, "the workload of the flags is not watched");
    }
    let (life, _) = watch::channel(Life::Open);
    let mut running = Running {
        address: main.address(),
        admin_address: admin.as_ref().and_then(Listener::address),
        certificates: Certificates(tls.clone()),
        watches: Arc::clone(&watches),
        ports: JoinSet::new(),
        life,
        drain_timeout: config.drain_timeout,
        streams_max: u32::try_from(STREAMS.max(2 * config.workloads_max)).unwrap_or(u32::MAX),
    };
    let scaler = service::Scaler {
        watches: Arc::clone(&watches),
        defaults: config.defaults.clone(),
        life: running.life.subscribe(),
    };
    let routes = service::routes(scaler, metrics.clone());
    running.serve("main", (main, tls), routes, &metrics);
    if let Some(admin) = admin {
        let routes = admin_routes(watches, metrics.clone(), running.life.subscribe());
        running.serve("admin", (admin, None), routes, &metrics);
    }
    Ok(running)
}

impl Running {
    fn serve(
        &mut self,
        name: &str,
        (listener, tls): (Listener, Option<Arc<Tls>>),
        routes: Router,
        metrics: &Metrics,
    ) {
        let connections_max = match name {
            "main" => CONNECTIONS,
            _ => ADMIN_CONNECTIONS,
        };
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
            },
            room: Room::new(connections_max),
            open: metrics.connections.with_label_values(&[name]),
            refused: metrics.connections_refused.with_label_values(&[name]),
            turns: Turns::beside_one_core(),
        };
        self.ports.spawn(serve(port, self.life.subscribe()));
    }

    /// Serves until `signal` is ready, then ends streams, answers what was asked and ends.
    ///
    /// # Errors
    /// When calls are still unanswered at the drain timeout.
    pub async fn until(mut self, signal: impl Future<Output = ()>) -> Result<(), ScalerError> {
        tokio::select! {
            () = signal => {}
            () = self.watches.forget_on() => {}
            () = self.certificates.clone().look_after() => {}
        }
        tracing::info!("draining");
        // Nobody listens only if the ports are closed already.
        let _ = self.life.send(Life::Closing);
        let all = async { while self.ports.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(self.drain_timeout, all).await;
        drained.map_err(|_| ScalerError::DrainTimeout(self.drain_timeout))
    }
}

/// The operators' port: metrics and health. Ready means that calls are answered, not that replicas are.
fn admin_routes(watches: Arc<Watches>, metrics: Metrics, life: watch::Receiver<Life>) -> Router {
    let scrape = |State((watches, metrics)): State<(Arc<Watches>, Metrics)>| async move {
        let (kind, text) = metrics.render(&watches.totals());
        ([(header::CONTENT_TYPE, kind)], text).into_response()
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
        .with_state((watches, metrics))
}
