//! A running server: its ports, and the order in which its parts end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::error::ServerError;
use super::kafka::KafkaInput;
use super::reload::Reloader;
use crate::api;
use crate::autoscale::Hints;
use crate::config::Config;
use crate::serving::{Classifier, EngineStopped};
use crate::trace::Tracing;
use crate::transport::{ConnectionLimits, ConnectionPermits, Life, Listener, Port, Tls, serve};

/// Connections on the operators' port, for scrapers and probes. They do not count against the main port.
const ADMIN_CONNECTIONS: usize = 256;

/// Time for the last spans to reach their collector.
const EXPORT: Duration = Duration::from_secs(2);

/// How the engine's thread ended; `None` when it ended without a word.
type EngineEnd = Option<Result<(), EngineStopped>>;

/// A server whose ports are bound and whose model is loading or loaded.
#[derive(Debug)]
pub struct Running {
    /// The TCP address for predictions, if there is one.
    pub address: Option<SocketAddr>,
    /// The address for operators, if there is one.
    pub admin_address: Option<SocketAddr>,
    /// The model behind its queue.
    pub classifier: Arc<Classifier>,
    /// The hints for autoscalers.
    pub hints: Arc<Hints>,
    /// Reloads the model, the certificates and the keys.
    pub reloader: Reloader,
    pub(super) engine_ended: mpsc::UnboundedReceiver<Result<(), EngineStopped>>,
    pub(super) ports: JoinSet<()>,
    pub(super) exporter: Option<JoinHandle<()>>,
    pub(super) follower: Option<JoinHandle<()>>,
    pub(super) kafka: KafkaInput,
    pub(super) life: watch::Sender<Life>,
    pub(super) engine_timeout: Option<Duration>,
    pub(super) lame_duck: Duration,
    pub(super) drain_timeout: Duration,
}

/// The bounds of a port: on each connection, and on their number.
struct PortBounds {
    limits: ConnectionLimits,
    permits: ConnectionPermits,
}

impl Running {
    fn served(&self) -> api::Served {
        (Arc::clone(&self.classifier), Arc::clone(&self.hints))
    }

    pub(super) fn serve_main(
        &mut self,
        listener: Listener,
        config: &Config,
        tracing: Option<Tracing>,
        permits: ConnectionPermits,
    ) {
        let mut settings = config.surfaces.clone();
        settings.keys = self.reloader.keys();
        settings.tracing = tracing;
        settings.life = Some(self.life.subscribe());
        let routes = api::main_routes(self.served(), &settings);
        let tls = self.reloader.tls();
        let limits = config.connections;
        self.serve(
            "main",
            listener,
            routes,
            tls,
            PortBounds { limits, permits },
        );
    }

    pub(super) fn serve_admin(&mut self, listener: Listener, config: &Config) {
        let mut settings = config.surfaces.clone();
        settings.keys = self.reloader.keys();
        let reloader = self.reloader.clone();
        let reload: api::Reload = Arc::new(move || {
            let reloader = reloader.clone();
            Box::pin(async move { reloader.reload().await })
        });
        let routes = api::admin_routes(self.served(), &settings, reload);
        let bounds = PortBounds {
            limits: ConnectionLimits {
                connections_max: ADMIN_CONNECTIONS,
                ..config.connections
            },
            permits: ConnectionPermits::new(ADMIN_CONNECTIONS),
        };
        self.serve("admin", listener, routes, None, bounds);
    }

    fn serve(
        &mut self,
        name: &str,
        listener: Listener,
        routes: axum::Router,
        tls: Option<Arc<Tls>>,
        PortBounds { limits, permits }: PortBounds,
    ) {
        let metrics = self.classifier.metrics();
        let port = Port {
            listener,
            routes,
            tls,
            limits,
            permits,
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
        let mut unreadable = None;
        let mut ended = tokio::select! {
            () = signal => None,
            why = self.kafka.failed() => {
                unreadable = Some(why);
                None
            }
            ended = self.engine_ended.recv() => Some(ended),
            stopped = self.classifier.stuck(self.engine_timeout) => Some(Some(Err(stopped))),
        };
        let deadline = Instant::now() + self.drain_timeout;
        self.classifier.drain();
        let kafka = std::mem::take(&mut self.kafka);
        let kafka = kafka.stop(deadline, ended.is_none());
        if ended.is_none() && self.classifier.is_loaded() {
            ended = self.serve_as_lame_duck(deadline).await;
        }
        tracing::info!("draining");
        // An error means that the ports are closed already.
        let _ = self.life.send(Life::Closing);
        let drained = tokio::select! {
            drained = drain(&mut self.ports, deadline) => drained,
            stopped = self.classifier.stuck(self.engine_timeout), if ended.is_none() => {
                ended = Some(Some(Err(stopped)));
                // All requests have been refused; the refusals still have to be sent.
                let deadline = Instant::now() + self.drain_timeout;
                drain(&mut self.ports, deadline).await
            }
        };
        if drained {
            self.export().await;
        }
        if let Some(kafka) = kafka {
            // It has its own deadline.
            let _ = kafka.await;
        }
        self.classifier.close();
        let unanswered = self.classifier.metrics().in_flight.get() > 0;
        if ended.is_none() && !drained && unanswered {
            return Err(ServerError::DrainTimeout(self.drain_timeout));
        }
        let read = unreadable.map_or(Ok(()), |why| Err(ServerError::Unreadable(why)));
        if !self.classifier.is_loaded() && ended.is_none() {
            // Nothing was admitted. To continue loading would only delay the end of the process.
            return read;
        }
        let ended = match ended {
            Some(ended) => ended,
            // Only batches of clients that have left can still run; nothing waits for these.
            None => match tokio::time::timeout_at(deadline, self.engine_ended.recv()).await {
                Ok(ended) => ended,
                Err(_) => return read,
            },
        };
        ended.unwrap_or(Err(EngineStopped::PanickedServing))?;
        read
    }

    /// Exports the last spans, once the last connection has ended.
    async fn export(&mut self) {
        if let Some(exporter) = self.exporter.take() {
            // A collector that does not answer does not delay the end for longer.
            let _ = tokio::time::timeout(EXPORT, exporter).await;
        }
    }

    /// Continues to serve for the lame-duck delay, not ready any more: load balancers need time to notice before
    /// the ports close. Returns early when the engine ends.
    async fn serve_as_lame_duck(&mut self, deadline: Instant) -> Option<EngineEnd> {
        if self.lame_duck.is_zero() {
            return None;
        }
        tracing::info!(delay = ?self.lame_duck, "not ready any more; closing after the lame-duck delay");
        // An error means that the ports are closed already.
        let _ = self.life.send(Life::LameDuck);
        let until = deadline.min(Instant::now() + self.lame_duck);
        tokio::select! {
            () = tokio::time::sleep_until(until) => None,
            ended = self.engine_ended.recv() => Some(ended),
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

/// Waits for all ports to end; returns whether they did in time.
async fn drain(ports: &mut JoinSet<()>, deadline: Instant) -> bool {
    let all = async { while ports.join_next().await.is_some() {} };
    tokio::time::timeout_at(deadline, all).await.is_ok()
}
