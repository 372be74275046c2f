//! The load report on answers: `endpoint-load-metrics`.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;

use super::Shared;
use crate::autoscale::orca::{Format, OrcaMode};

/// The report.
pub(super) const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// Asks for it, and in which form. Triton and vLLM have it so; Envoy does not ask.
pub(super) const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");

impl Shared {
    /// Adds the report to an answer, where that is wanted and asked for.
    pub(super) fn with_report(&self, headers: &HeaderMap, mut response: Response) -> Response {
        let asked = || {
            let value = headers.get(FORMAT)?.to_str().ok();
            Some(value.and_then(Format::named))
        };
        let format = match self.orca {
            OrcaMode::Off => None,
            // A form that does not exist gets no report, as with Triton.
            OrcaMode::OnRequest => asked().flatten(),
            OrcaMode::Always => asked().unwrap_or(Some(Format::Json)),
        };
        // Who may not ask is told nothing.
        let is_stranger = response.status() == StatusCode::UNAUTHORIZED;
        if let Some(format) = format.filter(|_| !is_stranger) {
            let value = self.hints.report(|report| report.header(format));
            response.headers_mut().insert(REPORT, value);
        }
        response
    }
}
