//! Sockets, TLS and HTTP framing under the surfaces: HTTP/1.1 and HTTP/2 with prior knowledge on one
//! port, everything bounded in size, number and time.
//!
//! Takes a listener and routes; serves until told to close, then loses nothing that a client has
//! sent before: connections that the kernel holds are accepted, requests on their way are answered,
//! and only connections that have been silent for a while are closed (`connection.rs`).

mod activity;
mod answer;
mod connection;
mod descriptors;
mod framing;
mod listener;
mod stream;
mod tls;
mod unread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

pub use self::descriptors::descriptors;
pub use self::listener::{BindError, Listener};
use self::stream::Stream;
pub use self::tls::{Tls, TlsError, TlsFiles};
use crate::turns::Turns;

/// The bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections open at once, on all listeners of the same [`Room`].
    pub connections_max: usize,
    /// Requests under way at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Bytes of a request's head: request line and headers.
    pub header_bytes_max: usize,
    /// Time for a head to arrive, for the TLS handshake, and for a first byte; `None` for no limit.
    pub header_timeout: Option<Duration>,
    /// Time that a connection may stay open without a request; `None` for no limit.
    pub idle_timeout: Option<Duration>,
}

/// Where the life of a port stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Requests are welcome.
    Open,
    /// They are answered, and clients are asked to use another connection next time.
    LameDuck,
    /// No connection is accepted; those that are open end once they are silent.
    Closing,
}

/// What the connections of a port share.
struct Shared {
    routes: Router,
    tls: Option<Arc<Tls>>,
    limits: ConnectionLimits,
    builder: Builder<TokioExecutor>,
    life: watch::Receiver<Life>,
    turns: Arc<Turns>,
    /// Whether answers tell HTTP/1 clients that the connection ends; `life` without its lock.
    last_answers: AtomicBool,
}

/// A port that is to be served.
#[derive(Debug)]
pub struct Port {
    /// Where connections come from.
    pub listener: Listener,
    /// What is served on them.
    pub routes: Router,
    /// Certificates, for TLS.
    pub tls: Option<Arc<Tls>>,
    /// Their bounds.
    pub limits: ConnectionLimits,
    /// How many there may be.
    pub room: Room,
    /// How many there are.
    pub open: IntGauge,
    /// How many were too many.
    pub refused: IntCounter,
    /// The turns that large bodies are read in.
    pub(crate) turns: Arc<Turns>,
}

/// Frames that wait to be written on an HTTP/2 connection, and what it may send before it is read:
/// enough for a body or two, so that thousands of connections fit into memory.
const H2_SEND_BYTES: usize = 256 << 10;
const H2_STREAM_WINDOW: u32 = 256 << 10;
const H2_CONNECTION_WINDOW: u32 = 512 << 10;

/// Streams that a client may reset before we have looked at them, and those that we reset for its
/// faults, before the connection ends (CVE-2023-44487, CVE-2025-8671).
const H2_RESETS_MAX: usize = 32;

/// A client that does not answer a ping is gone.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Our own clock tells a head that is on its way from a connection that is idle.
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(H2_RESETS_MAX)
        .max_local_error_reset_streams(H2_RESETS_MAX)
        .max_send_buf_size(H2_SEND_BYTES)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// Serves a port until `life` is [`Life::Closing`] and its last connection has ended.
pub async fn serve(port: Port, mut life: watch::Receiver<Life>) {
    let Port {
        mut listener,
        routes,
        tls,
        limits,
        room,
        open,
        refused,
        turns,
    } = port;
    let shared = Arc::new(Shared {
        routes,
        tls,
        builder: builder(&limits),
        limits,
        life: life.clone(),
        turns,
        last_answers: AtomicBool::new(false),
    });
    let admit = |stream: Stream| {
        let Ok(permit) = room.take() else {
            refused.inc();
            // Behind TLS nobody could read it.
            if shared.tls.is_none() {
                stream.refuse();
            }
            return;
        };
        open.inc();
        let (shared, open) = (Arc::clone(&shared), open.clone());
        tokio::spawn(async move {
            connection::run(stream, shared).await;
            open.dec();
            drop(permit);
        });
    };
    loop {
        tokio::select! {
            stream = listener.accept() => admit(stream),
            // An error means that the sender is gone, and then it is time to close as well.
            changed = life.changed() => match *life.borrow_and_update() {
                Life::Closing => break,
                _ if changed.is_err() => break,
                Life::Open => {}
                Life::LameDuck => shared.last_answers.store(true, Ordering::Relaxed),
            },
        }
    }
    shared.last_answers.store(true, Ordering::Relaxed);
    // Clients whose connections the kernel has accepted already do not know that they are late.
    listener.close(admit).await;
    room.empty().await;
}

/// How many connections may be open, on one listener or on several together.
#[derive(Debug, Clone)]
pub struct Room {
    permits: Arc<Semaphore>,
    max: u32,
}

impl Room {
    /// Room for so many.
    pub fn new(connections_max: usize) -> Self {
        let max = connections_max.min(Semaphore::MAX_PERMITS);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Self {
            permits: Arc::new(Semaphore::new(max as usize)),
            max,
        }
    }

    fn take(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.permits).try_acquire_owned()
    }

    /// Ready once no connection is open.
    async fn empty(&self) {
        // Never an error: the semaphore is never closed.
        let _ = self.permits.acquire_many(self.max).await;
    }
}
