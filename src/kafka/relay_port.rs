//! The relay's port for operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder as _, IntCounter, IntGauge, Registry, TextEncoder};

use crate::transport::{ConnectionLimits, ConnectionPermits, Listener, Port};
use intentd_base::turns::Turns;

/// Most connections.
const CONNECTIONS: usize = 256;

/// The port.
pub(super) fn port(listener: Listener, registry: Registry, is_reading: Arc<AtomicBool>) -> Port {
    let gauge = |name| IntGauge::new(name, name).expect("the name is well formed");
    let counter = |name| IntCounter::new(name, name).expect("the name is well formed");
    Port {
        listener,
        routes: admin_routes(registry, is_reading),
        tls: None,
        limits: ConnectionLimits {
            connections_max: CONNECTIONS,
            streams_max: 16,
            header_bytes_max: 16 << 10,
            header_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(120)),
            suppresses_continue: false,
        },
        permits: ConnectionPermits::new(CONNECTIONS),
        // These are not published.
        open: gauge("connections"),
        refused: counter("connections_refused_total"),
        turns: Turns::beside_one_core(),
    }
}

/// Metrics and health. Ready means that the topic is being read, not that the sink accepts records.
fn admin_routes(registry: Registry, is_reading: Arc<AtomicBool>) -> Router {
    let scrape = async |State(registry): State<Registry>| {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        encoder
            .encode(&registry.gather(), &mut text)
            .expect("writing to memory does not fail, and every metric has a value");
        let kind = encoder.format_type().to_owned();
        ([(header::CONTENT_TYPE, kind)], text).into_response()
    };
    let ready = move || async move {
        if is_reading.load(Ordering::Acquire) {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for Kafka\n")
        }
    };
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(registry)
}
