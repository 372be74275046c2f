//! `intentd relay`: POSTs the records of a topic to a URL, as Knative's KafkaSource does, without Knative Eventing.
//!
//! Unlike KafkaSource, it does not give up a record that the sink does not accept. Without a dead-letter topic
//! it retries until the sink accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::ClientError;
use super::metrics::{FailedOperation, KafkaMetrics, RecordOutcome};
use super::reader::Reader;
use super::record::Record;
use super::relay_port;
use super::settings::{RelaySettings, RetryPolicy};
use super::state::{LogArrivals, RecordHandler};
use super::topic_writer::{RecordError, TopicWriter};
use crate::api::RecordPlace as Place;
use crate::transport::{BindError, HttpClient, Life, Listener, ResponseLimits, serve};
use intentd_base::LogThrottle;

/// Bytes of a response that are read. A connection is reused only when its response has been read.
const RESPONSE_MAX: usize = 1 << 20;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A relay did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The operators' port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Kafka cannot be read with these settings.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// This process cannot read Kafka any more.
    #[error("Kafka cannot be read any more: {0}")]
    Unreadable(String),
    /// The sink uses HTTPS, and the system trusts no certificate authority.
    #[error("--sink: {0}")]
    Authorities(String),
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// The address for operators, if there is one.
    pub admin_address: Option<SocketAddr>,
    reader: Reader<SinkHandler>,
    ports: JoinSet<()>,
    life: watch::Sender<Life>,
    drain_timeout: Duration,
}

/// Begins to read and to deliver. Has to be called in a runtime.
///
/// # Errors
/// When the settings are invalid or the port cannot be bound. An unreachable Kafka or sink is no error.
pub fn start(settings: &RelaySettings) -> Result<Relay, RelayError> {
    let admin = settings.admin_address;
    let admin = admin
        .map(|address| Listener::tcp(address, "--admin-port"))
        .transpose()?;
    let registry = Registry::new();
    let metrics = KafkaMetrics::new(&registry);
    let is_reading = Arc::new(AtomicBool::new(false));
    let source = &settings.source;
    let writer = source.dead_letter_topic.as_ref();
    let writer = writer
        .map(|_| TopicWriter::new(&source.connection, metrics.clone()))
        .transpose()?;
    let handler = SinkHandler {
        client: HttpClient::new(settings.sink.scheme(), usize::MAX)
            .map_err(RelayError::Authorities)?,
        settings: settings.clone(),
        metrics: metrics.clone(),
        writer,
        is_reading: Arc::clone(&is_reading),
        sent: AtomicU64::new(0),
        retry_log: LogThrottle::new(),
        skip_log: LogThrottle::new(),
    };
    let (life, _) = watch::channel(Life::Open);
    let mut relay = Relay {
        admin_address: admin.as_ref().and_then(Listener::address),
        reader: Reader::start(source.clone(), handler, metrics)?,
        ports: JoinSet::new(),
        life,
        drain_timeout: settings.drain_timeout,
    };
    if let Some(listener) = admin {
        let port = relay_port::port(listener, registry, is_reading);
        relay.ports.spawn(serve(port, relay.life.subscribe()));
    }
    Ok(relay)
}

impl Relay {
    /// Delivers until `signal` is ready; then delivers what was read, commits, and ends.
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
        // An error means that the port is closed already.
        let _ = self.life.send(Life::Closing);
        let all = async { while self.ports.join_next().await.is_some() {} };
        // An open scraper connection does not delay the end for longer.
        let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
        unreadable.map_or(Ok(()), |why| Err(RelayError::Unreadable(why)))
    }
}

/// Delivers records to the sink.
#[derive(Debug)]
struct SinkHandler {
    client: HttpClient,
    settings: RelaySettings,
    metrics: KafkaMetrics,
    writer: Option<TopicWriter>,
    is_reading: Arc<AtomicBool>,
    /// The number of requests so far.
    sent: AtomicU64,
    retry_log: LogThrottle,
    skip_log: LogThrottle,
}

/// One of this number of requests closes its connection. A Service of Kubernetes chooses a pod for each connection,
/// so connections that are kept would never reach replicas that were added for the load.
const REQUESTS_PER_CLOSE: u64 = 64;

/// Why an attempt to deliver a record failed.
struct DeliveryFailure {
    reason: String,
    /// The sink's own words. They may quote the record, so they go where the record goes, and not into the log.
    answer: Option<String>,
    /// Whether the record is the cause, so that a retry would fail as well.
    is_final: bool,
    /// The pause that the sink asks for.
    retry_after: Option<Duration>,
}

impl RecordHandler for SinkHandler {
    async fn handle(&self, record: &Record) {
        if self.settings.is_ordered && !record.partition.turn(record.offset).await {
            return;
        }
        if let Some(outcome) = self.deliver(record).await {
            self.metrics.count_record(outcome);
        }
    }

    async fn give_up(&self, record: &Record) {
        let error = RecordError {
            kind: "Refused",
            reason: "working on it panicked".to_owned(),
            answer: None,
        };
        let outcome = self.dead_letter(record, error).await;
        self.metrics.count_record(outcome);
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn in_flight_max(&self) -> usize {
        self.settings.in_flight
    }

    fn can_write(&self) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|writer| !writer.is_denied())
    }

    fn set_reading(&self, is_reading: bool) {
        self.is_reading.store(is_reading, Ordering::Release);
    }

    fn observe(&self, _: LogArrivals) {}
}

impl SinkHandler {
    /// Delivers a record, with retries. `None` when order matters and another member has the record by now.
    async fn deliver(&self, record: &Record) -> Option<RecordOutcome> {
        let mut attempts = 0;
        loop {
            let Err(failure) = self.post(record, attempts > 0).await else {
                return Some(RecordOutcome::Done);
            };
            if self.settings.is_ordered && record.partition.is_revoked() {
                return None;
            }
            let DeliveryFailure {
                reason,
                answer,
                is_final,
                retry_after,
            } = failure;
            self.metrics.count_error(FailedOperation::Deliver);
            let is_spent = attempts >= self.settings.retry;
            if is_final || (is_spent && self.writer.is_some()) {
                let kind = if is_final { "Refused" } else { "Undelivered" };
                let error = RecordError {
                    kind,
                    reason,
                    answer,
                };
                return Some(self.dead_letter(record, error).await);
            }
            attempts = attempts.saturating_add(1);
            let pause = self
                .pause(attempts)
                .max(retry_after.unwrap_or_default())
                .min(PAUSE_MAX);
            tracing::debug!(%record, reason, ?pause, "a record is tried again");
            if is_spent && let Some(times) = self.retry_log.event() {
                tracing::error!(%record, reason, ?pause, times, "a record is not taken");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes a record and its error to the dead-letter topic, if there is one.
    async fn dead_letter(&self, record: &Record, error: RecordError) -> RecordOutcome {
        let topic = &self.settings.source.dead_letter_topic;
        if let (Some(writer), Some(topic)) = (&self.writer, topic) {
            writer.write_dead_letter(topic, record, &error).await;
            return RecordOutcome::DeadLettered;
        }
        if let Some(times) = self.skip_log.event() {
            let RecordError { reason, .. } = error;
            tracing::warn!(%record, reason, times, "a record is passed over (no --kafka-dead-letter-topic)");
        }
        RecordOutcome::Dropped
    }

    /// The pause before the retry with this number (Knative Eventing, `backoffPolicy`).
    fn pause(&self, retry: u32) -> Duration {
        let delay = self.settings.retry_delay;
        let pause = match self.settings.retry_policy {
            RetryPolicy::Linear => delay.checked_mul(retry),
            RetryPolicy::Exponential => delay.checked_mul(1 << retry.min(20)),
        };
        pause.unwrap_or(PAUSE_MAX).min(PAUSE_MAX)
    }

    /// One attempt to deliver a record. A retry closes its connection afterwards.
    async fn post(&self, record: &Record, is_retry: bool) -> Result<(), DeliveryFailure> {
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
        if is_retry || sent.is_multiple_of(REQUESTS_PER_CLOSE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.sink.clone();
        *request.headers_mut() = headers;
        let later = |reason: String| DeliveryFailure {
            reason,
            answer: None,
            is_final: false,
            retry_after: None,
        };
        let limits = ResponseLimits {
            time: self.settings.request_timeout,
            bytes: RESPONSE_MAX,
        };
        let sent = self.client.send(request, limits).await;
        let response = sent.map_err(|error| later(error.to_string()))?;
        let head = response.head;
        if head.status.is_success() {
            return Ok(());
        }
        let retry_after = head.headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        Err(DeliveryFailure {
            reason: format!("the sink answered {}", head.status),
            answer: response.body.ok().and_then(|body| excerpt(&body)),
            is_final: is_final(head.status),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

/// Bytes of the sink's answer that a dead letter repeats.
const ANSWER_MAX: usize = 1024;

/// The beginning of the sink's answer, if it is text.
fn excerpt(body: &Bytes) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let end = text.floor_char_boundary(ANSWER_MAX.min(text.len()));
    (!text.is_empty()).then(|| text[..end].to_owned())
}

/// Whether the record is the cause of a status. Knative gives up on more statuses (knative/specs, "Event delivery"):
/// redirects, and refusals by a key or a policy. These are no reason to lose a valid record.
fn is_final(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 413 | 414 | 415 | 422 | 431)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statuses_about_the_record_are_final() {
        let status_is_final = |status: u16| is_final(StatusCode::from_u16(status).unwrap());
        for status in [400, 413, 415, 422] {
            assert!(status_is_final(status), "{status}");
        }
        for status in [301, 401, 403, 404, 408, 409, 429, 500, 503, 504] {
            assert!(!status_is_final(status), "{status}");
        }
    }
}
