//! From the start of the process to the first answer: `cargo bench --bench startup`.
//!
//! Starts the program on a free port and asks for `music` until it hears `PlayMusic`; prints the
//! shortest, the median and the longest of a number of runs.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 21;

fn main() {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| start_to_answer()).collect();
    times.sort();
    let (first, median, last) = (times[0], times[RUNS / 2], times[RUNS - 1]);
    println!("process start to first PlayMusic, {RUNS} runs");
    println!("shortest, median, longest  {first:.1?}, {median:.1?}, {last:.1?}");
}

fn start_to_answer() -> Duration {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_intentd"))
        .args(["--host", "127.0.0.1", "--port", "0", "--admin-port", "off"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "the program ended early"
        );
        if let Some((_, address)) = line.split_once("serving predictions address=") {
            break address.trim().to_owned();
        }
    };
    while ask(&address) != "PlayMusic" {
        std::thread::sleep(Duration::from_micros(500));
    }
    let time = start.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    time
}

/// The body of the answer, whatever its status.
fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /predict?query=music HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
        .split_once("\r\n\r\n")
        .map_or_else(String::new, |(_, body)| body.to_owned())
}
