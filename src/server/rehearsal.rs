//! What a request costs beside the engine, measured before the first one comes.
//!
//! A fast model costs less than the sockets, HTTP and tokens around it, and how much these cost at full load
//! cannot be seen at a low one: then each request wakes threads, later one that is awake takes the
//! next. So a twin of the classifier, with its engine, is served on the loopback address for some hundredths of a
//! second, by the same code, to more clients than it has answers for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::api;
use crate::autoscale::host::HostClock;
use crate::autoscale::{Hints, Rehearsed};
use crate::bench::{Options, Runner, Target, read_texts};
use crate::serving::Classifier;
use crate::transport::{ConnectionLimits, Life, Listener, Port, Room, descriptors, serve};

/// Time until connections are open and memory is where it will be, and time that is measured.
const WARM_UP: Duration = Duration::from_millis(10);
const MEASURED: Duration = Duration::from_millis(80);

/// Clients that ask again and again.
const CLIENTS: usize = 64;

/// Each client takes two file descriptors; with fewer than that, they are kept for the server.
const DESCRIPTORS_MIN: usize = 1024;

/// Asks the twin, on the calling thread, which is not one of `runtime`. `None` where the machine does not
/// let it be measured.
pub(super) fn rehearse(
    runtime: &Handle,
    twin: &Arc<Classifier>,
    (settings, hints): (&api::Settings, &Arc<Hints>),
) -> Option<Rehearsed> {
    if descriptors() < DESCRIPTORS_MIN {
        return None;
    }
    let (address, life) = open(runtime, twin, (settings, hints))?;
    let target: Target = format!("http://{address}/predict?query={{query}}")
        .parse()
        .ok()?;
    let runner = Runner {
        options: Options {
            warm_up: Duration::ZERO,
            duration: MEASURED,
            timeout: Duration::from_secs(5),
            connections: CLIENTS,
            streams: 1,
            workers: 1,
            seed: 1,
        },
        texts: read_texts(None).ok()?,
    };
    runner.saturate(&target, WARM_UP).ok()?;
    let mut clock = HostClock::default();
    let mut seen = || Some((clock.read()?, twin.arrivals().counts(), twin.observe()?));
    let start = Instant::now();
    let (cpu, counts, engine) = seen()?;
    runner.saturate(&target, MEASURED).ok()?;
    let elapsed = start.elapsed();
    let (cpu_after, counts_after, engine_after) = seen()?;
    let spent = engine_after.engine.since(engine.engine).spent;
    let spent = engine.computes_alone.then_some(spent);
    // Nobody listens only if the port is closed already.
    let _ = life.send(Life::Closing);
    let rehearsed = Rehearsed {
        requests: (counts_after.answered - counts.answered) as f64,
        batches: (engine_after.batches - engine.batches) as f64,
        cpu: cpu_after.beside_batches(cpu, spent).as_secs_f64(),
        elapsed: elapsed.as_secs_f64(),
    };
    tracing::info!(
        took = ?start.elapsed() + WARM_UP,
        requests = rehearsed.requests,
        request_us = (rehearsed.cpu / rehearsed.requests.max(1.0) * 1e8).round() / 1e2,
        "cost of requests known beside the engine"
    );
    Some(rehearsed)
}

fn open(
    runtime: &Handle,
    twin: &Arc<Classifier>,
    (settings, hints): (&api::Settings, &Arc<Hints>),
) -> Option<(SocketAddr, watch::Sender<Life>)> {
    let _inside = runtime.enter();
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::tcp(free, "rehearsal").ok()?;
    let address = listener.address()?;
    let (life, lives) = watch::channel(Life::Open);
    let forever = Duration::from_secs(60);
    let port = Port {
        listener,
        routes: api::main_routes((Arc::clone(twin), Arc::clone(hints)), settings),
        tls: None,
        limits: ConnectionLimits {
            connections_max: CLIENTS,
            streams_max: 1,
            header_bytes_max: 8192,
            header_timeout: Some(forever),
            idle_timeout: Some(forever),
        },
        room: Room::new(CLIENTS),
        open: IntGauge::new("open", "open").ok()?,
        refused: IntCounter::new("refused", "refused").ok()?,
        turns: Arc::clone(twin.turns()),
    };
    runtime.spawn(serve(port, lives));
    Some((address, life))
}
