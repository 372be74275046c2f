//! The load report of ORCA (Open Request Cost Aggregation; `xds.data.orca.v3.OrcaLoadReport`, gRPC
//! proposal A51), as a response header for load balancers.
//!
//! Contains only standard fields, because Envoy rejects a report with any other. `application_utilization` is the
//! offered load divided by the capacity. It is linear in a server's share of the load, as client-side weighted
//! round robin requires.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use prost::Message as _;

use super::snapshot::Snapshot;

/// Messages of `proto/xds/data/orca/v3`.
#[expect(missing_docs, reason = "generated; the .proto has the words")]
pub mod proto {
    tonic::include_proto!("xds.data.orca.v3");
}

/// When responses carry a load report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OrcaMode {
    /// Never.
    Off,
    /// When the request has the header endpoint-load-metrics-format.
    OnRequest,
    /// Always, as JSON unless the request asks for another format.
    Always,
}

/// The formats of a load report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// `JSON {"…":…}`
    Json,
    /// `TEXT name=value,…`
    Text,
    /// `BIN …`, the message in base64.
    Binary,
}

impl ReportFormat {
    /// The format that a header asks for: `json`, `text` or `bin`.
    pub fn named(name: &str) -> Option<Self> {
        let forms = [
            ("json", Self::Json),
            ("text", Self::Text),
            ("bin", Self::Binary),
        ];
        let is_named = |(form, _): &&(&str, Self)| form.eq_ignore_ascii_case(name.trim());
        forms.iter().find(is_named).map(|(_, format)| *format)
    }
}

/// Rounds to six significant digits, which keeps the header short. Not six decimals: a balancer ignores a
/// utilization of 0, and under light load on a large machine it is far below 1e-6.
fn digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let shift = 10_f64.powi(5 - value.abs().log10().floor() as i32);
    let rounded = (value * shift).round() / shift;
    if rounded.is_finite() { rounded } else { 0.0 }
}

/// The encoded message. If all fields are zero, it would be empty, which is no valid header; the utilization is
/// then written explicitly.
fn encoded(message: &proto::OrcaLoadReport) -> Vec<u8> {
    /// Field 9, a double, of 0.
    const ZERO: [u8; 9] = [9 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = message.encode_to_vec();
    if bytes.is_empty() {
        ZERO.to_vec()
    } else {
        bytes
    }
}

/// A load report, encoded in every format.
#[derive(Debug)]
pub struct LoadReport {
    json: HeaderValue,
    text: HeaderValue,
    binary: HeaderValue,
    trailer: HeaderValue,
}

impl LoadReport {
    /// The report for a snapshot with `eps` errors per second.
    pub fn new(snapshot: &Snapshot, eps: f64) -> Self {
        let utilization = digits(snapshot.utilization);
        let rps = digits(snapshot.accepted_rps);
        let eps = digits(eps);
        let message = proto::OrcaLoadReport {
            application_utilization: utilization,
            rps_fractional: rps,
            eps,
            ..proto::OrcaLoadReport::default()
        };
        let fields = [
            ("application_utilization", utilization),
            ("rps_fractional", rps),
            ("eps", eps),
        ];
        let join = |each: fn(&(&str, f64)) -> String| fields.each_ref().map(each).join(",");
        let json = join(|(name, value)| format!("\"{name}\":{value}"));
        let text = join(|(name, value)| format!("{name}={value}"));
        let value = |form: String| {
            HeaderValue::from_str(&form).expect("names and numbers are visible ASCII")
        };
        Self {
            json: value(format!("JSON {{{json}}}")),
            text: value(format!("TEXT {text}")),
            binary: value(format!("BIN {}", STANDARD.encode(encoded(&message)))),
            trailer: value(STANDARD_NO_PAD.encode(encoded(&message))),
        }
    }

    /// The value of the gRPC trailer `endpoint-load-metrics-bin`: the message, encoded like gRPC binary metadata.
    pub fn trailer(&self) -> HeaderValue {
        self.trailer.clone()
    }

    /// The value of the header `endpoint-load-metrics`.
    pub fn header(&self, format: ReportFormat) -> HeaderValue {
        match format {
            ReportFormat::Json => self.json.clone(),
            ReportFormat::Text => self.text.clone(),
            ReportFormat::Binary => self.binary.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
