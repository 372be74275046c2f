//! `intentd relay`: POSTs the records of a topic to a URL, as Knative's KafkaSource does, for those who have
//! no Knative Eventing.
//!
//! Unlike there, a record that nobody takes is not given up: without a topic of dead letters it is tried
//! until somebody does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prometheus::{Encoder as _, IntCounter, IntGauge, Registry, TextEncoder};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::ClientError;
use super::metrics::{Fate, KafkaMetrics, Trouble};
use super::outlet::Outlet;
use super::reader::Reader;
use super::record::Record;
use super::settings::{RelaySettings, RetryPolicy};
use super::state::Handler;
use crate::api::RecordPlace as Place;
use crate::seldom::Seldom;
use crate::transport::{BindError, ConnectionLimits, Life, Listener, Port, Room, serve};
use crate::turns::Turns;

/// Bytes of an answer that are read: a connection is only used again once its answer is.
const ANSWER: usize = 1 << 20;

/// Pause between two tries, at most.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Connections of the operators' port.
const CONNECTIONS: usize = 256;

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The operators' port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Kafka cannot be read with these settings.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Kafka will not be read any more by this process.
    #[error("Kafka cannot be read any more: {0}")]
    Unreadable(String),
    /// The system's authorities cannot be read.
    #[error("the system's certificate authorities cannot be read: {0}")]
    Authorities(std::io::Error),
}

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    /// Where operators look, if anywhere.
    pub admin_address: Option<SocketAddr>,
    reader: Reader<Courier>,
    ports: JoinSet<()>,
    life: watch::Sender<Life>,
    drain_timeout: Duration,
}

/// Begins to read and to deliver. To be called in a runtime.
///
/// # Errors
/// When settings make no sense or the port is not to be had; not when Kafka or the sink cannot be reached.
pub fn start(settings: &RelaySettings) -> Result<Relay, RelayError> {
    let admin = settings.admin_address;
    let admin = admin
        .map(|address| Listener::tcp(address, "--admin-port"))
        .transpose()?;
    let registry = Registry::new();
    let metrics = KafkaMetrics::new(&registry);
    let is_reading = Arc::new(AtomicBool::new(false));
    let source = &settings.source;
    let outlet = source.dead_letter_topic.as_ref();
    let outlet = outlet
        .map(|_| Outlet::new(&source.connection, metrics.clone()))
        .transpose()?;
    let roots = hyper_rustls::HttpsConnectorBuilder::new();
    let connector = if settings.sink.scheme_str() == Some("https") {
        roots.with_native_roots().map_err(RelayError::Authorities)?
    } else {
        // Where nothing is encrypted, no authority has to be there.
        let none = tokio_rustls::rustls::ClientConfig::builder()
            .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty());
        roots.with_tls_config(none.with_no_client_auth())
    };
    let connector = connector.https_or_http().enable_http1().build();
    let courier = Courier {
        client: Client::builder(TokioExecutor::new()).build(connector),
        settings: settings.clone(),
        metrics: metrics.clone(),
        outlet,
        is_reading: Arc::clone(&is_reading),
        sent: AtomicU64::new(0),
        refused: Seldom::new(),
        passed_over: Seldom::new(),
    };
    let (life, _) = watch::channel(Life::Open);
    let mut relay = Relay {
        admin_address: admin.as_ref().and_then(Listener::address),
        reader: Reader::start(source.clone(), courier, metrics)?,
        ports: JoinSet::new(),
        life,
        drain_timeout: settings.drain_timeout,
    };
    if let Some(listener) = admin {
        let routes = admin_routes(registry, is_reading);
        relay
            .ports
            .spawn(serve(port(listener, routes), relay.life.subscribe()));
    }
    Ok(relay)
}

impl Relay {
    /// Works until `signal` is ready; then delivers what was read, commits, and ends.
    ///
    /// # Errors
    /// When Kafka cannot be read any more by this process.
    pub async fn until(mut self, signal: impl Future<Output = ()>) -> Result<(), RelayError> {
        let unreadable = tokio::select! {
            () = signal => None,
            why = self.reader.failed() => Some(why),
        };
        tracing::info!("draining");
        let deadline = Instant::now() + self.drain_timeout;
        self.reader.stop(deadline).await;
        // Nobody listens only if the port is closed already.
        let _ = self.life.send(Life::Closing);
        let all = async { while self.ports.join_next().await.is_some() {} };
        // A scraper that holds on does not keep the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
        unreadable.map_or(Ok(()), |why| Err(RelayError::Unreadable(why)))
    }
}

/// Delivers records.
#[derive(Debug)]
struct Courier {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    settings: RelaySettings,
    metrics: KafkaMetrics,
    outlet: Option<Outlet>,
    is_reading: Arc<AtomicBool>,
    /// Requests so far.
    sent: AtomicU64,
    refused: Seldom,
    passed_over: Seldom,
}

/// Of so many requests one ends its connection. A Service of Kubernetes chooses a pod for each connection; those
/// that are kept would never reach the replicas that came for the load.
const REQUESTS: u64 = 64;

/// Why a record was not taken.
struct Failure {
    reason: String,
    /// Whether it says something of the record, so that trying again does not help.
    is_final: bool,
    /// When to try again, by the sink's own word.
    told: Option<Duration>,
}

impl Handler for Courier {
    async fn handle(&self, record: &Record) {
        let fate = self.deliver(record).await;
        self.metrics.end(fate);
    }

    async fn give_up(&self, record: &Record) {
        let fate = self
            .bury(record, ("Refused", "working on it panicked"))
            .await;
        self.metrics.end(fate);
    }

    fn is_willing(&self) -> bool {
        true
    }

    fn room(&self) -> usize {
        self.settings.in_flight
    }

    fn begin(&self) {
        self.is_reading.store(true, Ordering::Release);
    }

    fn see(&self, _: u64, _: u64) {}
}

impl Courier {
    async fn deliver(&self, record: &Record) -> Fate {
        let mut tries = 0;
        loop {
            let Err(failure) = self.post(record, tries > 0).await else {
                return Fate::Done;
            };
            let Failure {
                reason,
                is_final,
                told,
            } = failure;
            self.metrics.fail(Trouble::Deliver);
            let is_spent = tries >= self.settings.retry;
            if is_final || (is_spent && self.outlet.is_some()) {
                let kind = if is_final { "Refused" } else { "Undelivered" };
                return self.bury(record, (kind, &reason)).await;
            }
            tries = tries.saturating_add(1);
            let pause = self
                .pause(tries)
                .max(told.unwrap_or_default())
                .min(PAUSE_MAX);
            tracing::debug!(%record, reason, ?pause, "a record is tried again");
            if is_spent && let Some(times) = self.refused.now() {
                tracing::error!(%record, reason, ?pause, times, "a record is not taken");
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn bury(&self, record: &Record, why: (&str, &str)) -> Fate {
        let topic = &self.settings.source.dead_letter_topic;
        if let (Some(outlet), Some(topic)) = (&self.outlet, topic) {
            outlet.write_dead_letter(topic, record, why).await;
            return Fate::Buried;
        }
        if let Some(times) = self.passed_over.now() {
            let (_, reason) = why;
            tracing::warn!(%record, reason, times, "a record is passed over (no --kafka-dead-letter-topic)");
        }
        Fate::Dropped
    }

    /// The pause before the `tries`-th try after the first (Knative Eventing, `backoffPolicy`).
    fn pause(&self, tries: u32) -> Duration {
        let delay = self.settings.retry_delay;
        let pause = match self.settings.retry_policy {
            RetryPolicy::Linear => delay.checked_mul(tries),
            RetryPolicy::Exponential => delay.checked_mul(1 << tries.min(20)),
        };
        pause.unwrap_or(PAUSE_MAX).min(PAUSE_MAX)
    }

    /// One try; on a connection that nobody uses after it, where there were others before.
    async fn post(&self, record: &Record, is_again: bool) -> Result<(), Failure> {
        let place = Place {
            partition: record.partition.number,
            offset: record.offset,
            written: record.written,
        };
        let (mut headers, body) = record.message(true).delivery(place);
        if let Some(host) = &self.settings.host {
            headers.insert(header::HOST, host.clone());
        }
        headers.insert("prefer", HeaderValue::from_static("reply"));
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        if is_again || sent.is_multiple_of(REQUESTS) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.sink.clone();
        *request.headers_mut() = headers;
        let later = |reason: String| Failure {
            reason,
            is_final: false,
            told: None,
        };
        let timeout = self.settings.request_timeout;
        let exchange = async {
            let sent = self.client.request(request).await;
            let (head, body) = sent.map_err(|error| later(causes(&error)))?.into_parts();
            // The status has said it all; a connection is only used again once its answer is read.
            let _ = Limited::new(body, ANSWER).collect().await;
            Ok(head)
        };
        let answered = tokio::time::timeout(timeout, exchange).await;
        let head = answered.map_err(|_| later(format!("no answer within {timeout:?}")))??;
        if head.status.is_success() {
            return Ok(());
        }
        let told = head.headers.get(header::RETRY_AFTER);
        let told = told.and_then(|told| told.to_str().ok()?.parse().ok());
        Err(Failure {
            reason: format!("the sink answered {}", head.status),
            is_final: is_final(head.status),
            told: told.map(Duration::from_secs),
        })
    }
}

/// Whether a status says something of the record. Knative gives up on more (knative/specs, "Event delivery"):
/// on redirects and on what a key or a policy refuses, which is no reason to lose what others would take.
fn is_final(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 413 | 414 | 415 | 422 | 431)
}

/// An error with what it came from, which says more.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn port(listener: Listener, routes: Router) -> Port {
    let gauge = |name| IntGauge::new(name, name).expect("the name is well formed");
    let counter = |name| IntCounter::new(name, name).expect("the name is well formed");
    Port {
        listener,
        routes,
        tls: None,
        limits: ConnectionLimits {
            connections_max: CONNECTIONS,
            streams_max: 16,
            header_bytes_max: 16 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
        },
        room: Room::new(CONNECTIONS),
        // Nobody asks how many operators look.
        open: gauge("connections"),
        refused: counter("connections_refused_total"),
        turns: Turns::beside_one_core(),
    }
}

/// Metrics and health. Ready means that the topic is read, not that the sink takes records.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_the_record_is_final() {
        let final_one = |status: u16| is_final(StatusCode::from_u16(status).unwrap());
        for status in [400, 413, 415, 422] {
            assert!(final_one(status), "{status}");
        }
        for status in [301, 401, 403, 404, 408, 409, 429, 500, 503, 504] {
            assert!(!final_one(status), "{status}");
        }
    }
}
