//! A port: accepts connections, spawns a task for each, and closes without losing requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use futures_util::future::BoxFuture;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;

use super::connection::{self, ConnectionContext};
use super::http;
use super::life::Life;
use super::limits::{ConnectionLimits, ConnectionPermits};
use super::listener::Listener;
use super::stream::Stream;
use super::tls::Tls;
use intentd_base::turns::Turns;

/// A port to serve.
#[derive(Debug)]
pub struct Port {
    /// The source of connections.
    pub listener: Listener,
    /// The routes that are served.
    pub routes: Router,
    /// The certificates, for TLS.
    pub tls: Option<Arc<Tls>>,
    /// The bounds on each connection.
    pub limits: ConnectionLimits,
    /// The bound on the number of connections.
    pub permits: ConnectionPermits,
    /// Connections that are open.
    pub open: IntGauge,
    /// Connections that were refused because too many were open.
    pub refused: IntCounter,
    /// The turns in which large bodies are read.
    pub turns: Arc<Turns>,
}

/// Serves a port until `life` is [`Life::Closing`] and its last connection has ended.
///
/// The future is boxed so that it is compiled with this package. Otherwise HTTP and TLS would be compiled with each
/// package that serves a port, each time that it changes.
pub fn serve(port: Port, life: watch::Receiver<Life>) -> BoxFuture<'static, ()> {
    Box::pin(accept(port, life))
}

async fn accept(port: Port, mut life: watch::Receiver<Life>) {
    let Port {
        mut listener,
        routes,
        tls,
        limits,
        permits,
        open,
        refused,
        turns,
    } = port;
    let context = Arc::new(ConnectionContext {
        routes,
        tls,
        builder: http::builder(&limits),
        limits,
        life: life.clone(),
        turns,
        closes_after_response: AtomicBool::new(false),
    });
    let admit = |stream: Stream| {
        let Ok(permit) = permits.acquire() else {
            refused.inc();
            // A client that expects TLS could not read the refusal.
            if context.tls.is_none() {
                stream.refuse();
            }
            return;
        };
        open.inc();
        let (context, open) = (Arc::clone(&context), open.clone());
        tokio::spawn(async move {
            connection::run(stream, context).await;
            open.dec();
            drop(permit);
        });
    };
    let close_after_response = || context.closes_after_response.store(true, Ordering::Relaxed);
    loop {
        tokio::select! {
            stream = listener.accept() => admit(stream),
            // An error means that the sender is gone. Then it is time to close as well.
            changed = life.changed() => match *life.borrow_and_update() {
                Life::Closing => break,
                _ if changed.is_err() => break,
                Life::Open => {}
                Life::LameDuck => close_after_response(),
            },
        }
    }
    close_after_response();
    // The kernel has completed handshakes of clients that do not know yet that the port closes.
    listener.close(admit).await;
    permits.all_returned().await;
}
