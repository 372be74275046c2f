//! Certificates, and what the log says when a connection cannot be made.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use super::broker::shared;
use crate::support::process::{Server, failure, run};

/// The certificates of a broker's ports, and their authority.
pub(super) struct Certificates {
    pub(super) authority: PathBuf,
}

impl Certificates {
    /// Writes a file with a key and a certificate for each port.
    pub(super) fn new(folder: &Path) -> Self {
        let mut own = CertificateParams::new(Vec::new()).unwrap();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, own.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(own, key);
        for (name, host, until) in [
            ("tls", "127.0.0.1", 4000),
            ("expired", "127.0.0.1", 2020),
            ("misnamed", "kafka.example.com", 4000),
        ] {
            let mut params = CertificateParams::new([host.to_owned()]).unwrap();
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let pem = key.serialize_pem() + &certificate.pem();
            std::fs::write(folder.join(format!("{name}.pem")), pem).unwrap();
        }
        Self { authority }
    }
}

/// Starts a server that cannot read Kafka, waits until its log says what is `expected`, lets it try for eight seconds
/// more, and returns what it says about Kafka.
fn complaints(port: u16, more: &[&str], expected: &str) -> Vec<String> {
    let brokers = format!("127.0.0.1:{port}");
    let flags = [
        "--port",
        "0",
        "--kafka-brokers",
        &brokers,
        "--kafka-topic",
        "tls",
        "--kafka-group",
        "tls",
    ];
    let mut server = Server::start(&[&flags[..], more].concat(), &[]);
    let mut log = server.log_before.clone();
    while !log.contains(expected) {
        let read = server.log.read_line(&mut log).unwrap();
        assert!(read > 0, "the program ended: {log}");
    }
    std::thread::sleep(std::time::Duration::from_secs(8));
    let (_, rest) = server.signal("TERM");
    log += &rest;
    let lines = log.lines().filter(|line| line.contains("Kafka"));
    let is_trouble = |line: &&str| line.contains("ERROR") || line.contains("WARN");
    lines.filter(is_trouble).map(str::to_owned).collect()
}

/// Each error was logged twice, 70 lines in eight seconds, and most said only that all brokers are down.
#[test]
fn what_is_wrong_with_a_connection_is_told_once() {
    let broker = shared();
    let authority = broker.certificates.authority.to_str().unwrap();
    let tls = ["--kafka-security", "ssl", "--kafka-ca", authority];
    let ports = broker.ports;
    for (port, flags, expected) in [
        (ports.expired, &tls[..], "certificate expired"),
        (ports.misnamed, &tls, "kafka.example.com"),
        (ports.tls, &[], "expects TLS"),
        (1, &[], "refused"),
    ] {
        let lines = complaints(port, flags, expected);
        println!("{expected}: {lines:#?}");
        // One for each reason, and one each ten seconds.
        assert!(lines.len() <= 4, "{lines:#?}");
    }
}

#[test]
fn a_file_that_is_missing_is_named() {
    let output = run(
        &[
            "--port",
            "0",
            "--kafka-brokers",
            "127.0.0.1:1",
            "--kafka-topic",
            "tls",
            "--kafka-security",
            "ssl",
            "--kafka-ca",
            "/nowhere/ca.pem",
        ],
        "",
    );
    let (code, message) = failure(&output);
    assert!(code != Some(0));
    assert!(
        message.contains("--kafka-ca: /nowhere/ca.pem: No such file"),
        "{message}"
    );
}
