//! Spans: what a trace holds of one request.

use std::time::SystemTime;

use axum::http::Method;

use super::context::TraceContext;

/// The span of a request, from its head to its response.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace that the span belongs to.
    pub context: TraceContext,
    /// The request's method.
    pub method: Method,
    /// The route, not the path: a path may hold anything.
    pub route: &'static str,
    /// The surface that answered, if the request reached one.
    pub surface: Option<&'static str>,
    /// The status of the response.
    pub status: u16,
    /// When the head was complete.
    pub start: SystemTime,
    /// When the response was ready.
    pub end: SystemTime,
}
