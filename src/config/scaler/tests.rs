use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    scaler: ScalerArgs,
}

fn config(flags: &[&str]) -> Result<Config, ConfigError> {
    let line = std::iter::once("intentd").chain(flags.iter().copied());
    Command::try_parse_from(line).unwrap().scaler.checked()
}

#[test]
fn a_service_link_is_not_a_port() {
    let port = |flags: &[&str]| config(flags).unwrap().address.port();
    assert_eq!(port(&[]), 9101);
    assert_eq!(port(&["--port", "tcp://10.0.0.1:9101"]), 9101);
    assert_eq!(port(&["--port", "7000"]), 7000);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let flags = [
        "--port",
        "off",
        "--interval",
        "1ms",
        "--max-workloads",
        "0",
        "--tls-key",
        "key.pem",
        "--tls-client-ca",
        "ca.pem",
        "--wake-query",
        "up",
        "--fixed",
        "--log",
        "a=b=c",
    ];
    let error = config(&flags).unwrap_err();
    let text = error.to_string();
    for flag in [
        "--port",
        "--interval",
        "--max-workloads",
        "--tls-key",
        "--tls-client-ca",
        "--wake-query",
        "--replicas",
        "--log",
    ] {
        assert!(text.contains(flag), "{flag} is missing from:\n{text}");
    }
    assert_eq!(error.0.len(), 9, "{text}");
}

#[test]
fn blank_items_of_a_list_are_ignored() {
    let flags = ["--replicas", "a:1,b:2", "--replicas", "c:3"];
    assert_eq!(config(&flags).unwrap().defaults.endpoints.len(), 3);
    let flags = ["--replicas", "a:1, b:2,", "--kafka-config", "\n"];
    assert_eq!(config(&flags).unwrap().defaults.endpoints.len(), 2);
    assert!(config(&["--replicas", ",", "--fixed"]).is_err());
}

#[cfg(not(feature = "kafka"))]
#[test]
fn without_kafka_the_mistake_names_the_feature() {
    let flags = [
        "--wake-kafka",
        "k:1",
        "--wake-topic",
        "t",
        "--wake-group",
        "g",
    ];
    let error = config(&flags).unwrap_err().to_string();
    assert!(error.contains("--features kafka"), "{error}");
}
