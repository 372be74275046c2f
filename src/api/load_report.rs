//! Load reports on answers (ORCA): the header `endpoint-load-metrics` and its gRPC trailer.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use crate::autoscale::Hints;
use crate::autoscale::orca::{LoadReport, OrcaMode, ReportFormat};

/// Carries the report.
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// Asks for a report and names its format, as in Triton and vLLM. Envoy does not send it.
const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");

/// Attaches load reports to answers.
#[derive(Clone)]
pub(super) struct LoadReporter {
    hints: Arc<Hints>,
    mode: OrcaMode,
}

impl LoadReporter {
    pub(super) fn new(hints: Arc<Hints>, mode: OrcaMode) -> Self {
        Self { hints, mode }
    }

    /// Adds the report to an answer if the mode and the request's headers ask for one.
    pub(super) fn attach(&self, headers: &HeaderMap, mut response: Response) -> Response {
        // A client without a key learns nothing about the load.
        let is_unauthorized = response.status() == StatusCode::UNAUTHORIZED;
        let format = self.requested_format(headers);
        if let Some(format) = format.filter(|_| !is_unauthorized) {
            let value = self.hints.report(|report| report.header(format));
            response.headers_mut().insert(REPORT, value);
        }
        response
    }

    /// The report for gRPC trailers if the mode and the request's headers ask for one.
    pub(super) fn trailer(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        self.requested_format(headers)?;
        Some(self.hints.report(LoadReport::trailer))
    }

    fn requested_format(&self, headers: &HeaderMap) -> Option<ReportFormat> {
        let requested = || {
            let value = headers.get(FORMAT)?.to_str().ok();
            Some(value.and_then(ReportFormat::named))
        };
        match self.mode {
            OrcaMode::Off => None,
            // As in Triton, an unknown format gets no report.
            OrcaMode::OnRequest => requested().flatten(),
            OrcaMode::Always => requested().unwrap_or(Some(ReportFormat::Json)),
        }
    }
}
