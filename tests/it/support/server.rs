//! A real server on free ports, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use intentd::config::{Config, Platform, ServeArgs};
use intentd::engine::{self, Engine, EngineKind, EngineOptions};
use intentd::model::Checkpoint;
use intentd::server::{self, Running, ServerError};
use intentd::serving::{Classifier, Phase};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::engine::{Gate, Gated};
use super::http;

/// A server that stops when told.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) classifier: Arc<Classifier>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Result<(), ServerError>>,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The settings that `flags` give on free ports of the loopback address.
pub(crate) fn config(flags: &[&str]) -> Config {
    let line = [
        "intentd",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--admin-port",
        "0",
    ];
    // The same on every machine and however long a test takes, unless the flags say otherwise.
    let usual = [
        ("--device", "cpu"),
        ("--slo", "off"),
        ("--lame-duck", "off"),
    ];
    // Without an objective nothing depends on it, and an engine of a test counts its batches.
    let measured = flags.contains(&"--slo");
    let calibration = ("--calibration", if measured { "true" } else { "false" });
    let usual = usual
        .iter()
        .chain([&calibration])
        .filter(|(flag, _)| !flags.contains(flag))
        .flat_map(|(flag, value)| [flag, value]);
    let flags = Flags::parse_from(line.iter().chain(usual).chain(flags));
    Config::new(flags.serve, &Platform::default()).expect("the flags of the test are right")
}

impl TestServer {
    /// The embedded model on the CPU engine, ready.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let running = server::start(&config(flags)).expect("the ports are free");
        let server = Self::wrap(running);
        server.ready().await;
        server
    }

    /// The embedded model behind an engine that `wrap` makes of the CPU engine, ready.
    pub(crate) async fn with_engine<E: Engine + 'static>(
        flags: &[&str],
        wrap: impl FnOnce(Box<dyn Engine>) -> E + Send + 'static,
    ) -> Self {
        let server = Self::wrap(
            server::start_with(&config(flags), move || {
                let (checkpoint, engine) = embedded();
                let engine: Box<dyn Engine> = Box::new(wrap(engine));
                Ok((checkpoint, engine))
            })
            .expect("the ports are free"),
        );
        server.ready().await;
        server
    }

    /// The embedded model behind a gate, ready.
    pub(crate) async fn gated(flags: &[&str]) -> (Self, Arc<Gate>) {
        let gate = Gate::closed();
        let engines = Arc::clone(&gate);
        let gated = |engine| Gated {
            engine,
            gate: engines,
        };
        (Self::with_engine(flags, gated).await, gate)
    }

    pub(crate) fn wrap(running: Running) -> Self {
        let (stop, stopped) = oneshot::channel();
        let classifier = Arc::clone(&running.classifier);
        let address = running.address.expect("the test asked for a port");
        let admin = running
            .admin_address
            .expect("the test asked for an admin port");
        let ended = tokio::spawn(running.until(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            admin,
            classifier,
            stop: Some(stop),
            ended,
        }
    }

    pub(crate) async fn ready(&self) {
        eventually("the model is loaded", || {
            self.classifier.phase() == Phase::Ready
        })
        .await;
    }

    /// As SIGTERM does.
    pub(crate) fn signal(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for the end of a server that was signalled or whose engine is lost.
    pub(crate) async fn ended(self) -> Result<(), ServerError> {
        self.ended.await.expect("the server does not panic")
    }

    pub(crate) async fn stop(mut self) {
        self.signal();
        self.ended().await.expect("the server ends well");
    }

    /// The value of a series in `/metrics`; the sum of all that have these labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let answer = http::get(self.admin, "/metrics", &[]).await;
        let found = http::metric(&answer.body, series);
        found.unwrap_or_else(|| panic!("{series} is not in\n{}", answer.body))
    }
}

/// The embedded checkpoint and the CPU engine for it.
pub(crate) fn embedded() -> (Checkpoint, Box<dyn Engine>) {
    let checkpoint = Checkpoint::embedded().expect("the embedded model is whole");
    let engine = cpu_engine(&checkpoint);
    (checkpoint, engine)
}

/// The CPU engine for a checkpoint, on all cores.
pub(crate) fn cpu_engine(checkpoint: &Checkpoint) -> Box<dyn Engine> {
    let threads = std::thread::available_parallelism().expect("the machine has cores");
    let options = EngineOptions::cpu(EngineKind::Native, threads);
    engine::load(checkpoint, options).expect("it loads").engine
}

/// Waits until `condition` holds; the bound only keeps a broken test from hanging.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}
