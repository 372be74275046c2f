//! TLS and logins, and the errors when they fail.

use std::io::{BufRead as _, Write as _};

use intentd_broker::{Broker, Gate, Login, Mechanism, Settings};
use tempfile::NamedTempFile;

use super::fixture::{self, GROUP, TOPIC, all_is_committed, flags, produce};
use crate::support::http;
use crate::support::process::{Server, failure, run};

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn guarded(mechanism: Mechanism) -> Broker {
    let login = Login {
        mechanism,
        username: "intents".to_owned(),
        password: "right".to_owned(),
    };
    let settings = Settings::topic(TOPIC, 3).behind(Gate::SaslSsl(login));
    Broker::start(&settings).unwrap()
}

/// Starts a server for `broker` with some flags changed, and checks that its log says `expected`.
async fn reports(broker: &Broker, changes: &[(&str, &str)], expected: &str) {
    let (ca, password) = (file(broker.ca_pem().unwrap()), file("right"));
    let mut flags = flags(&broker.bootstrap());
    for (flag, value) in [
        ("--kafka-security", "sasl-ssl"),
        ("--kafka-username", "intents"),
        ("--kafka-password-file", path(&password)),
        ("--kafka-ca", path(&ca)),
    ] {
        flags.extend([flag.to_owned(), value.to_owned()]);
    }
    for (flag, value) in changes {
        let place = flags.iter().position(|found| found == flag).unwrap();
        (*value).clone_into(&mut flags[place + 1]);
    }
    let mut arguments = vec!["--port", "0"];
    arguments.extend(flags.iter().map(String::as_str));
    let mut server = Server::start(&arguments, &[]);
    let is_report = |line: &str| line.contains("Kafka cannot be read") && line.contains(expected);
    // The reader may be faster than the ports.
    let mut line = String::new();
    let is_early = server.log_before.lines().any(is_report);
    while !is_early && !is_report(&line) {
        line.clear();
        assert!(
            server.log.read_line(&mut line).unwrap() > 0,
            "the program ended"
        );
    }
    let mut ready = http::get(server.address, "/readyz", &[]).await;
    while ready.body == "loading\n" {
        ready = http::get(server.address, "/readyz", &[]).await;
    }
    assert_eq!(
        (ready.status, ready.body.trim()),
        (503, "waiting for Kafka")
    );
    let (code, _) = server.signal("TERM");
    assert_eq!(code, Some(0), "it ends at once and successfully");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_over_tls() {
    for mechanism in Mechanism::ALL {
        let broker = guarded(mechanism);
        produce(&broker, 0..100);
        // A newline at the end of a mounted secret is not part of the password.
        let (ca, password) = (file(broker.ca_pem().unwrap()), file("right\n"));
        let mechanism = mechanism.name().to_lowercase();
        let mut flags = flags(&broker.bootstrap());
        for (flag, value) in [
            ("--kafka-security", "sasl-ssl"),
            ("--kafka-sasl-mechanism", &mechanism),
            ("--kafka-username", "intents"),
            ("--kafka-password-file", path(&password)),
            ("--kafka-ca", path(&ca)),
        ] {
            flags.extend([flag.to_owned(), value.to_owned()]);
        }
        let server = fixture::server(&flags).await;
        all_is_committed(&broker, GROUP).await;
        assert_eq!(broker.refused(), 0);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_reported_and_the_server_is_not_ready() {
    let broker = guarded(Mechanism::Plain);
    let wrong = file("wrong");
    reports(
        &broker,
        &[("--kafka-password-file", path(&wrong))],
        "uthentication",
    )
    .await;
    assert!(broker.refused() > 0);
    let other = guarded(Mechanism::Plain);
    let foreign = file(other.ca_pem().unwrap());
    reports(
        &broker,
        &[("--kafka-ca", path(&foreign))],
        "certificate verify failed",
    )
    .await;
    reports(
        &broker,
        &[("--kafka-topic", "nothing-here")],
        "nothing-here",
    )
    .await;
}

#[test]
fn invalid_settings_end_the_program() {
    let (code, message) = {
        let flags = [
            "--kafka-brokers",
            "127.0.0.1:9",
            "--kafka-topic",
            "x",
            "--port",
            "0",
        ];
        let wrong = ["--kafka-config", "no.such.setting=1"];
        let output = run(&[&flags[..], &wrong].concat(), "");
        let (code, message) = failure(&output);
        (code, message.to_owned())
    };
    assert_eq!(code, Some(64), "{message}");
    assert!(message.contains("no.such.setting"), "{message}");
    let output = run(&["relay", "--sink", "http://localhost:1"], "");
    let (code, message) = failure(&output);
    assert_eq!(code, Some(64));
    assert!(message.contains("--kafka-brokers"), "{message}");
}
