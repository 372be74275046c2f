//! Traces: which request of whom this is, for logs and for a collector.
//!
//! A request that comes with a `traceparent` (W3C Trace Context, level 1) is a span of that trace;
//! one without begins a trace of its own, which is kept for a share of requests. Spans go to an
//! OpenTelemetry collector over OTLP/HTTP in its JSON form ([`Exporter`]). Nothing of a request's
//! text is in them.

mod context;
mod export;

use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

pub use self::context::{SpanId, TraceContext, TraceId};
pub use self::export::{Endpoint, Exporter};
use crate::metrics::Surface;
use crate::seldom::Seldom;

/// What is done about traces.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// Where spans go; only to the log when `None`.
    pub exporter: Option<Exporter>,
    /// Share of the requests without a `traceparent` whose spans are kept.
    pub sample: f64,
}

/// A request from its head to its answer.
#[derive(Debug, Clone)]
pub struct Span {
    /// Whose it is.
    pub context: TraceContext,
    /// The request's method.
    pub method: Method,
    /// The route, which is not the path: that may hold anything.
    pub route: &'static str,
    /// The interface by which it came, where it got as far.
    pub surface: Option<&'static str>,
    /// The answer's status.
    pub status: u16,
    /// When the head was there.
    pub start: SystemTime,
    /// When the answer was.
    pub end: SystemTime,
}

/// Measures the requests of a route.
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
            .get::<Surface>()
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

/// The status, which gRPC has beside HTTP's where it refuses (google.rpc.Code, "HTTP mapping").
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
    // Two are as good as none (section 3.2.1).
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
    // Clients choose how many these are: each may give its requests no time at all.
    static FAILED: Seldom = Seldom::new();
    if status >= 500
        && let Some(times) = FAILED.now()
    {
        tracing::warn!(%trace_id, %span_id, %method, route, surface, status, ?took, times, "request failed");
    }
}
