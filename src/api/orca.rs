//! The load report on answers: `endpoint-load-metrics`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::Shared;
use crate::autoscale::orca::{LoadReport, OrcaMode, ReportFormat};

/// The report.
pub(super) const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// Asks for it, and in which form. Triton and vLLM have it so; Envoy does not ask.
pub(super) const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");

impl Shared {
    /// Adds the report to an answer, where that is wanted and asked for.
    pub(super) fn with_report(&self, headers: &HeaderMap, mut response: Response) -> Response {
        // Who may not ask is told nothing.
        let is_stranger = response.status() == StatusCode::UNAUTHORIZED;
        if let Some(format) = self.asked_for(headers).filter(|_| !is_stranger) {
            let value = self.hints.report(|report| report.header(format));
            response.headers_mut().insert(REPORT, value);
        }
        response
    }

    /// The report for the trailers of gRPC, where one is wanted and asked for.
    pub(super) fn trailer(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        self.asked_for(headers)?;
        Some(self.hints.report(LoadReport::trailer))
    }

    fn asked_for(&self, headers: &HeaderMap) -> Option<ReportFormat> {
        let asked = || {
            let value = headers.get(FORMAT)?.to_str().ok();
            Some(value.and_then(ReportFormat::named))
        };
        match self.orca {
            OrcaMode::Off => None,
            // A form that does not exist gets no report, as with Triton.
            OrcaMode::OnRequest => asked().flatten(),
            OrcaMode::Always => asked().unwrap_or(Some(ReportFormat::Json)),
        }
    }
}
