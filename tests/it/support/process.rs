//! The program as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use super::http::get;

pub(crate) fn intentd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentd"));
    // The environment of whoever runs the tests must not change what they see.
    command.env_clear();
    command
}

pub(crate) fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = intentd()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    // A program that ends with an error need not read its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

pub(crate) fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn failure(output: &Output) -> (Option<i32>, &str) {
    (
        output.status.code(),
        std::str::from_utf8(&output.stderr).unwrap(),
    )
}

/// Sends a signal, given by its name: a bare system has no program for it.
pub(crate) fn kill(process: u32, name: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("no test sends {other}"),
    };
    let process = Pid::from_raw(process.cast_signed()).expect("a process has a number");
    kill_process(process, signal).expect("it is ours");
}

/// The address in a line of the log, as text or as JSON.
fn address_in(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("127.0.0.1:").expect("an address");
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}").parse().expect("an address")
}

/// A running `intentd serve` and its address, read from its log.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// What the log said up to the address.
    #[cfg_attr(
        not(feature = "kafka-broker"),
        allow(dead_code, reason = "only tests of Kafka look at it")
    )]
    pub(crate) log_before: String,
    pub(crate) log: BufReader<Box<dyn Read + Send>>,
}

impl Server {
    /// Ends without a delay when told, unless `arguments` say otherwise.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let at_once = ["--lame-duck", "off"];
        let named = arguments.contains(&"--lame-duck");
        let at_once = if named { &[][..] } else { &at_once };
        Self::start_plain(&[at_once, arguments].concat(), environment)
    }

    /// As [`start`](Self::start), as a child of another program.
    pub(crate) fn start_under(wrapper: &[&str], arguments: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(env!("CARGO_BIN_EXE_intentd"));
        command.args(["--lame-duck", "off"]).args(arguments);
        Self::spawn(command)
    }

    /// With nothing but these arguments and variables.
    pub(crate) fn start_plain(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = intentd();
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        if !command
            .get_args()
            .any(|argument| argument == "--admin-port")
        {
            command.args(["--admin-port", "0"]);
        }
        let mut child = command
            .args(["--host", "127.0.0.1"])
            // Whoever reads the tests' output would wait for a server that outlives them.
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("it was piped"));
        let mut log = BufReader::new(stderr);
        let mut log_before = String::new();
        let address = loop {
            let length = log_before.len();
            assert!(
                log.read_line(&mut log_before).unwrap() > 0,
                "the program ended early"
            );
            let line = &log_before[length..];
            if line.contains("serving predictions") {
                break address_in(line);
            }
        };
        Self {
            child,
            address,
            log_before,
            log,
        }
    }

    pub(crate) async fn ready(&self) {
        while get(self.address, "/readyz", &[]).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// The address that operators look at, which the log says right after that for predictions.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.log.read_line(&mut line).unwrap() > 0,
                "the program ended early"
            );
            if line.contains("metrics and health") {
                return address_in(&line);
            }
        }
    }

    /// Sends a signal and does not wait for what comes of it.
    pub(crate) fn kill(&self, name: &str) {
        kill(self.child.id(), name);
    }

    /// The exit code, or none for a process that a signal ended, and the rest of the log.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("the program ends").code();
        let mut log = String::new();
        self.log.read_to_string(&mut log).expect("the log is text");
        (code, log)
    }

    pub(crate) fn signal(&mut self, name: &str) -> (Option<i32>, String) {
        self.kill(name);
        self.ended()
    }
}

impl Drop for Server {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
