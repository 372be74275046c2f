//! Runs `intentd serve` as a process that reads the topic.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use intentd_broker::Broker;
use tempfile::NamedTempFile;

use super::topic::{GROUP, PASSWORD, RESULTS, TOPIC};

/// The files and the address that servers need to log in.
#[derive(Debug)]
pub(crate) struct Secrets {
    ca: NamedTempFile,
    password: NamedTempFile,
    bootstrap: String,
}

impl Secrets {
    pub(crate) fn of(broker: &Broker) -> Self {
        let file = |content: &str| {
            let mut file = NamedTempFile::new().expect("there is room in /tmp");
            file.write_all(content.as_bytes())
                .expect("there is room in /tmp");
            file
        };
        Self {
            ca: file(broker.ca_pem().expect("the gate has TLS")),
            password: file(PASSWORD),
            bootstrap: broker.bootstrap(),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts a server that writes results if `results` is set, pinned to `core` if that is set.
    pub(crate) fn start(
        secrets: &Secrets,
        results: bool,
        core: Option<u32>,
        more: &[String],
    ) -> Self {
        let program = env!("CARGO_BIN_EXE_intentd");
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string(), program]);
                command
            }
            None => Command::new(program),
        };
        command
            .args([
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--admin-port",
                "off",
            ])
            .args(["--threads", "1", "--lame-duck", "off", "--log", "warn"])
            .args([
                "--kafka-brokers",
                &secrets.bootstrap,
                "--kafka-topic",
                TOPIC,
            ])
            .args(["--kafka-group", GROUP, "--kafka-group-protocol", "consumer"])
            .args([
                "--kafka-security",
                "sasl-ssl",
                "--kafka-sasl-mechanism",
                "scram-sha-512",
            ])
            .args(["--kafka-username", "intents", "--kafka-password-file"])
            .arg(secrets.password.path())
            .arg("--kafka-ca")
            .arg(secrets.ca.path())
            .args(more)
            .stdin(Stdio::null());
        if results {
            command.args(["--kafka-results-topic", RESULTS]);
        }
        Self(command.spawn().expect("the program starts"))
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }

    /// Sends SIGTERM; returns whether the server ended successfully.
    pub(crate) fn end(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.0);
        let told = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        told.is_ok() && self.0.wait().is_ok_and(|status| status.success())
    }

    /// Resident memory in MB.
    pub(crate) fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kilobytes.unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
