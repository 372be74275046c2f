use super::*;
use crate::autoscale::{HintSettings, Hints, Trend};
use crate::metrics::Metrics;

fn report(utilization: f64, rps: f64, eps: f64) -> LoadReport {
    let settings = HintSettings {
        objective: Some(0.1),
        utilization: 0.8,
        drain: 30.0,
        trend: Trend::Off,
        pod: "pod".to_owned(),
        model: "model".to_owned(),
    };
    let hints = Hints::new(settings, &Metrics::new());
    let snapshot = Snapshot {
        utilization,
        accepted_rps: rps,
        ..hints.read(Clone::clone)
    };
    LoadReport::new(&snapshot, eps)
}

#[test]
fn formats_are_those_that_envoy_reads() {
    let report = report(0.62, 3100.25, 0.0);
    let header = |format| report.header(format).to_str().unwrap().to_owned();
    assert_eq!(
        header(ReportFormat::Json),
        r#"JSON {"application_utilization":0.62,"rps_fractional":3100.25,"eps":0}"#
    );
    assert_eq!(
        header(ReportFormat::Text),
        "TEXT application_utilization=0.62,rps_fractional=3100.25,eps=0"
    );
    let binary = header(ReportFormat::Binary);
    let bytes = STANDARD.decode(binary.strip_prefix("BIN ").unwrap());
    let message = proto::OrcaLoadReport::decode(&*bytes.unwrap()).unwrap();
    assert_eq!(message.application_utilization, 0.62);
    assert_eq!(message.rps_fractional, 3100.25);
}

#[test]
fn numbers_have_six_digits_and_no_exponent() {
    let report = report(1.0 / 3.0, 1e-9 / 3.0, 0.0);
    let json = report.header(ReportFormat::Json);
    assert_eq!(
        json.to_str().unwrap(),
        r#"JSON {"application_utilization":0.333333,"rps_fractional":0.000000000333333,"eps":0}"#
    );
    assert_eq!(digits(123_456_789.0), 123_457_000.0);
    assert_eq!(digits(f64::MIN_POSITIVE / 2.0).to_bits() >> 63, 0);
}

#[test]
fn the_report_of_an_idle_server_is_not_empty() {
    let binary = report(0.0, 0.0, 0.0).header(ReportFormat::Binary);
    let content = binary.to_str().unwrap().strip_prefix("BIN ").unwrap();
    let bytes = STANDARD.decode(content).unwrap();
    let message = proto::OrcaLoadReport::decode(&*bytes).unwrap();
    assert_eq!(message, proto::OrcaLoadReport::default());
    assert!(!bytes.is_empty());
}

#[test]
fn format_names_are_case_insensitive() {
    assert_eq!(ReportFormat::named("JSON"), Some(ReportFormat::Json));
    assert_eq!(ReportFormat::named(" text "), Some(ReportFormat::Text));
    assert_eq!(ReportFormat::named("bin"), Some(ReportFormat::Binary));
    assert_eq!(ReportFormat::named("xml"), None);
}
