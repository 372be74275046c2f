//! Exports spans to an OpenTelemetry collector: OTLP over HTTP, in JSON (OTLP specification 1.x, OTLP/HTTP).
//!
//! A task collects spans and sends them by the hundred. It never delays a request: spans beyond its queue are
//! dropped and counted. The protocol is implemented here because its JSON form is a page of code, and the
//! libraries for it add some thirty packages.

use std::time::{Duration, SystemTime};

use axum::http::uri::Authority;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use prometheus::IntCounterVec;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::endpoint::Endpoint;
use super::span::Span;
use crate::transport::{HttpClient, ResponseLimits};
use intentd_base::LogThrottle;

/// Spans that wait to be sent, spans in one request, and the longest wait of the first of them.
const WAITING_MAX: usize = 4096;
const SENT_AT_ONCE: usize = 512;
const INTERVAL: Duration = Duration::from_secs(2);

/// Time for the collector to accept a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of an answer. Nothing in it is used but the status.
const ANSWER_MAX: usize = 64 << 10;

/// Queues spans for export.
#[derive(Debug, Clone)]
pub struct Exporter {
    waiting: mpsc::Sender<Span>,
    spans: IntCounterVec,
}

impl Exporter {
    /// Starts the task. It ends when the last exporter is dropped and all spans are sent. `spans` counts them by
    /// outcome.
    ///
    /// # Errors
    /// When the endpoint uses HTTPS and the system trusts no certificate authority.
    pub fn start(
        endpoint: Endpoint,
        service: String,
        spans: IntCounterVec,
    ) -> Result<(Self, JoinHandle<()>), String> {
        let (waiting, receiver) = mpsc::channel(WAITING_MAX);
        let task = ExportTask {
            client: HttpClient::new(endpoint.url.scheme(), 1)?,
            endpoint,
            service,
            spans: spans.clone(),
            failing: LogThrottle::new(),
        };
        Ok((Self { waiting, spans }, tokio::spawn(task.run(receiver))))
    }

    /// Queues a span, or drops it when too many wait.
    pub(super) fn send(&self, span: Span) {
        if self.waiting.try_send(span).is_err() {
            self.spans.with_label_values(&["dropped"]).inc();
        }
    }
}

/// Sends spans in batches.
struct ExportTask {
    client: HttpClient,
    endpoint: Endpoint,
    service: String,
    spans: IntCounterVec,
    failing: LogThrottle,
}

impl ExportTask {
    async fn run(mut self, mut receiver: mpsc::Receiver<Span>) {
        let mut batch = Vec::with_capacity(SENT_AT_ONCE);
        while receiver.recv_many(&mut batch, SENT_AT_ONCE).await > 0 {
            let more = async {
                while batch.len() < SENT_AT_ONCE {
                    let room = SENT_AT_ONCE - batch.len();
                    if receiver.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            // The batch is sent when it is full, when it is late, and at the end.
            let _ = tokio::time::timeout(INTERVAL, more).await;
            let sent = self.send(&batch).await;
            self.report(sent, batch.len());
            batch.clear();
        }
    }

    fn report(&mut self, sent: Result<(), String>, count: usize) {
        let outcome = match sent {
            Ok(()) => "exported",
            Err(error) => {
                if let Some(times) = self.failing.events(count as u64) {
                    let collector = self.endpoint.url.authority().map_or("", Authority::as_str);
                    tracing::warn!(collector, error, times, "spans dropped (--otlp-endpoint)");
                }
                "dropped"
            }
        };
        self.spans
            .with_label_values(&[outcome])
            .inc_by(count as u64);
    }

    async fn send(&self, spans: &[Span]) -> Result<(), String> {
        let Endpoint { url, authorization } = &self.endpoint;
        let mut request = Request::post(url.clone()).header("content-type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request
            .body(Full::new(Bytes::from(self.body(spans).to_string())))
            .map_err(|error| error.to_string())?;
        let limits = ResponseLimits {
            time: TIMEOUT,
            bytes: ANSWER_MAX,
        };
        let answer = self.client.send(request, limits).await;
        let status = answer.map_err(|error| error.to_string())?.head.status;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it answers {status}"))
        }
    }

    /// The body of an `ExportTraceServiceRequest`.
    fn body(&self, spans: &[Span]) -> Value {
        let spans: Vec<Value> = spans.iter().map(span_json).collect();
        json!({"resourceSpans": [{
            "resource": {"attributes": [
                attribute("service.name", &json!({"stringValue": self.service})),
                attribute("service.version", &json!({"stringValue": env!("CARGO_PKG_VERSION")})),
            ]},
            "scopeSpans": [{"scope": {"name": "intentd"}, "spans": spans}],
        }]})
    }
}

/// A span by the semantic conventions for HTTP servers.
fn span_json(span: &Span) -> Value {
    let nanos = |time: SystemTime| {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        since.as_nanos().to_string()
    };
    // OTLP has ids in hexadecimal, not in base64 like other JSON of protocol buffers.
    let mut value = json!({
        "traceId": span.context.trace_id.to_string(),
        "spanId": span.context.span_id.to_string(),
        "name": format!("{} {}", span.method, span.route),
        "kind": 2,
        "startTimeUnixNano": nanos(span.start),
        "endTimeUnixNano": nanos(span.end),
        "attributes": [
            attribute("http.request.method", &json!({"stringValue": span.method.as_str()})),
            attribute("http.route", &json!({"stringValue": span.route})),
            attribute("http.response.status_code", &json!({"intValue": span.status.to_string()})),
        ],
        // For the span of a server, only the server's own failures are errors.
        "status": if span.status >= 500 { json!({"code": 2}) } else { json!({}) },
    });
    if let Some(parent) = span.context.parent_id {
        value["parentSpanId"] = json!(parent.to_string());
    }
    value
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({"key": key, "value": value})
}
