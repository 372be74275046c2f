//! The program `intentd-broker`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{PATIENCE, TOPIC};

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentd-broker"));
    command
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Starts the program; returns it and the address that it prints.
fn start(flags: &[&str]) -> (Child, String) {
    let mut child = command(flags).spawn().unwrap();
    let mut address = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut address).unwrap();
    (child, address.trim_end().to_owned())
}

fn failure(flags: &[&str]) -> String {
    let Output { status, stderr, .. } = command(flags).stderr(Stdio::piped()).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

fn partitions(config: &ClientConfig) -> usize {
    let client: BaseConsumer = config.create().unwrap();
    let metadata = client.fetch_metadata(Some(TOPIC), PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}

#[test]
fn it_serves_until_it_is_told_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("address");
    let (mut child, address) = start(&[
        "--topic",
        "intents:3",
        "--port-file",
        file.to_str().unwrap(),
    ]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), address);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &address);
    assert_eq!(partitions(&config), 3);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_serves_logins_over_tls_until_its_input_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ca, password) = (path("ca.pem"), path("password"));
    std::fs::write(&password, "s3cret\n").unwrap();
    let login = ["--sasl-username", "app", "--sasl-password-file", &password];
    let more = [
        "--topic",
        "intents:2",
        "--ca-file",
        &ca,
        "--until-stdin-closes",
    ];
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let flags = [&login[..], &more, &["--sasl-mechanism", mechanism]].concat();
        let (mut child, address) = start(&flags);
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &address)
            .set("security.protocol", "SASL_SSL")
            .set("ssl.ca.location", &ca)
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", "app")
            .set("sasl.password", "s3cret");
        assert_eq!(partitions(&config), 2);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn wrong_flags_are_named() {
    for (flags, named) in [
        (&["--topic", "intents"][..], "--topic"),
        (&["--topic", "intents:x"], "--topic"),
        (&["--topic", "intents:0"], "intents"),
        (&["--sasl-username", "app"], "--sasl-password-file"),
        (&["--sasl-mechanism", "PLAIN"], "--sasl-username"),
        (
            &["--sasl-username", "app", "--sasl-password-file", "/missing"],
            "/missing",
        ),
        (&["--port-file", "/missing/file"], "/missing/file"),
    ] {
        let said = failure(flags);
        assert!(said.contains(named), "{flags:?}: {said}");
    }
    assert!(!Path::new("/missing").exists());
}
