//! Wires the stages: ports, model, routes, and the order in which they end.
//!
//! The ports are bound first, so that an early client gets 503 instead of no connection. On
//! stop, readiness ends first. After the lame-duck delay the ports close. Then all
//! admitted requests are answered, and the engine's thread ends.

mod error;
mod kafka;
mod loader;
mod reload;
mod running;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::error::ServerError;
use self::kafka::KafkaInput;
use self::loader::{ModelLoader, model_loader};
use self::reload::ReloadableFiles;
pub use self::reload::Reloader;
pub use self::running::Running;
use crate::autoscale::Hints;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::serving::{Classifier, Prepared};
use crate::trace::{Exporter, Tracing};
use crate::transport::{ConnectionPermits, Life, Listener};

/// Binds the ports and begins to load the model that `config` names. Has to be called in a runtime.
///
/// # Errors
/// When a port cannot be bound, a thread cannot be started, or a file that a flag names cannot be used.
pub fn start(config: &Config) -> Result<Running, ServerError> {
    let metrics = Metrics::new();
    let load = model_loader(config, &metrics);
    let first = Arc::clone(&load);
    start_measured(config, metrics, move || first(), load)
}

/// As [`start`], but the caller prepares the first model and its engine.
///
/// # Errors
/// As [`start`].
pub fn start_with<F>(config: &Config, prepare: F) -> Result<Running, ServerError>
where
    F: FnOnce() -> Prepared + Send + 'static,
{
    let metrics = Metrics::new();
    let load = model_loader(config, &metrics);
    start_measured(config, metrics, prepare, load)
}

fn start_measured<F>(
    config: &Config,
    metrics: Metrics,
    first: F,
    load: ModelLoader,
) -> Result<Running, ServerError>
where
    F: FnOnce() -> Prepared + Send + 'static,
{
    let files = ReloadableFiles::open(config)?;
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
    let (tracing, exporter) = tracing(config, &metrics)?;
    let (classifier, engine_ended) = Classifier::new(config.limits.clone(), metrics);
    let hints = Hints::new(config.hints.clone(), classifier.metrics());
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
        kafka: KafkaInput::default(),
        life,
        engine_timeout: config.engine_timeout,
        lame_duck: config.lame_duck,
        drain_timeout: config.drain_timeout,
    };
    running.kafka = KafkaInput::start(config, &running.classifier)?;
    // The exporter ends with the last route that has it.
    let permits = ConnectionPermits::new(config.connections.connections_max);
    for listener in mains {
        running.serve_main(listener, config, tracing.clone(), permits.clone());
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

/// Sets up tracing; `None` when neither a collector nor the log uses it.
///
/// # Errors
/// When spans cannot be sent to the collector.
fn tracing(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Option<Tracing>, Option<JoinHandle<()>>), ServerError> {
    let args = &config.trace;
    let started = args.otlp_endpoint.clone().map(|endpoint| {
        let spans = metrics.trace_spans.clone();
        Exporter::start(endpoint, args.otlp_service_name.clone(), spans)
    });
    let started = started.transpose().map_err(ServerError::Collector)?;
    let (exporter, task) = started.unzip();
    let is_wanted = exporter.is_some() || tracing::enabled!(tracing::Level::DEBUG);
    let sample = args.otlp_sample;
    Ok((is_wanted.then_some(Tracing { exporter, sample }), task))
}
