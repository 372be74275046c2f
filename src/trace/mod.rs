//! Traces: identify requests in logs and in a collector.
//!
//! A request with a `traceparent` (W3C Trace Context, level 1) is a span of that trace. One without it starts a
//! trace of its own, which is sampled. Spans go to an OpenTelemetry collector over OTLP/HTTP in its JSON form
//! ([`Exporter`]). They hold nothing of a request's text.

mod context;
mod endpoint;
mod export;
mod span;

use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

pub use self::context::{SpanId, TraceContext, TraceId};
pub use self::endpoint::Endpoint;
pub use self::export::Exporter;
pub use self::span::Span;
use crate::metrics::SurfaceLabel;
use intentd_base::LogThrottle;

/// How requests are traced.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// The exporter of spans; only the log gets them when `None`.
    pub exporter: Option<Exporter>,
    /// The share of requests without a `traceparent` whose spans are exported.
    pub sample: f64,
}

/// Traces the requests of a route.
pub(crate) async fn layer(
    State((tracing, route)): State<(Tracing, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let context = context_of(request.headers(), &tracing);
    let (method, start) = (request.method().clone(), SystemTime::now());
    let response = next.run(request).await;
    let span = Span {
        context,
        method,
        route,
        surface: response
            .extensions()
            .get::<SurfaceLabel>()
            .map(|surface| surface.label()),
        status: status_of(&response),
        start,
        end: SystemTime::now(),
    };
    log(&span);
    if let Some(exporter) = &tracing.exporter
        && span.context.sampled
    {
        exporter.send(span);
    }
    response
}

/// The status of the response. A refusal over gRPC has it in `grpc-status` (google.rpc.Code, "HTTP mapping").
fn status_of(response: &Response) -> u16 {
    let code = response.headers().get("grpc-status");
    match code.map(HeaderValue::as_bytes) {
        None | Some(b"0") => response.status().as_u16(),
        Some(b"3" | b"9" | b"11") => 400,
        Some(b"4") => 504,
        Some(b"5") => 404,
        Some(b"7") => 403,
        Some(b"8") => 429,
        Some(b"12") => 501,
        Some(b"14") => 503,
        Some(b"16") => 401,
        Some(_) => 500,
    }
}

fn context_of(headers: &HeaderMap, tracing: &Tracing) -> TraceContext {
    let mut values = headers.get_all("traceparent").iter();
    // Two headers count as none (section 3.2.1).
    let parent = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    let parent = parent.and_then(|value| value.parse().ok());
    parent.map_or_else(|| TraceContext::root(tracing.sample), TraceContext::child)
}

fn log(span: &Span) {
    let took = span.end.duration_since(span.start).unwrap_or_default();
    let (trace_id, span_id) = (&span.context.trace_id, &span.context.span_id);
    let (method, route, status) = (&span.method, span.route, span.status);
    let surface = span.surface;
    tracing::debug!(%trace_id, %span_id, %method, route, surface, status, ?took, "request");
    // Clients control the number of these lines: each may send requests that time out at once.
    static FAILED: LogThrottle = LogThrottle::new();
    if status >= 500
        && let Some(times) = FAILED.event()
    {
        tracing::warn!(%trace_id, %span_id, %method, route, surface, status, ?took, times, "request failed");
    }
}
