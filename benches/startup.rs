//! The time from process start to the first answer, and the memory of the process:
//! `cargo bench --bench startup`, with `-- --model DIR` for another model than the embedded one.
//!
//! Starts the program on a free port and sends `music` until it gets a label. Prints the shortest, the median
//! and the longest time of several runs. The last process is then loaded from 64 connections. Its memory
//! beyond the size of the checkpoint's tensors in f32 is the server's own.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use intentd::bench::{Options, Runner, read_texts};

#[derive(Debug, Parser)]
struct Flags {
    /// Directory of the checkpoint. The default is the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    #[arg(long, default_value = "21")]
    runs: usize,
    /// Duration of the load in seconds.
    #[arg(long, default_value = "5")]
    seconds: u64,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let flags = Flags::parse();
    let mut times = Vec::new();
    for _ in 1..flags.runs {
        times.push(Server::start(flags.model.as_deref()).took);
    }
    let server = Server::start(flags.model.as_deref());
    times.push(server.took);
    times.sort();
    let (first, median) = (times[0], times[times.len() / 2]);
    println!("process start to the first label, {} runs", flags.runs);
    println!(
        "shortest, median, longest  {first:.1?}, {median:.1?}, {:.1?}",
        times[times.len() - 1]
    );
    let weights = parameters(flags.model.as_deref()) * 4;
    let idle = server.memory("VmRSS:");
    let url = format!("http://{}/predict?query={{query}}", server.address);
    let runner = Runner {
        options: Options {
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            timeout: Duration::from_secs(60),
            connections: 64,
            streams: 1,
            workers: 1,
            seed: 1,
        },
        texts: read_texts(None).unwrap(),
    };
    let duration = Duration::from_secs(flags.seconds);
    let rate = runner.saturate(&url.parse().unwrap(), duration).unwrap();
    let loaded = server.memory("VmRSS:");
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let beyond = |bytes: u64| mb(bytes) - mb(weights);
    println!(
        "memory in MB             resident | beyond the weights ({:.1})",
        mb(weights)
    );
    println!(
        "after the first label  {:10.1} | {:.1}",
        mb(idle),
        beyond(idle)
    );
    println!(
        "under load ({rate:.0}/s)  {:10.1} | {:.1}",
        mb(loaded),
        beyond(loaded)
    );
    let most = server.memory("VmHWM:");
    println!(
        "at most                {:10.1} | {:.1}",
        mb(most),
        beyond(most)
    );
}

struct Server {
    child: Child,
    address: String,
    took: Duration,
}

impl Server {
    fn start(model: Option<&Path>) -> Self {
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentd"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--admin-port", "off"]);
        if let Some(model) = model {
            command.arg("--model").arg(model);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
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
        // The rest is discarded, so that the pipe does not fill up.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        while !ask(&address).starts_with("HTTP/1.1 200") {
            std::thread::sleep(Duration::from_micros(500));
        }
        let took = start.elapsed();
        Self {
            child,
            address,
            took,
        }
    }

    /// A line of /proc/PID/status (proc(5)), in bytes.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Sends one request and returns the response, whatever its status.
fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /predict?query=music HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The number of parameters in all tensors of a checkpoint with one file.
fn parameters(model: Option<&Path>) -> u64 {
    let directory = model.unwrap_or(Path::new("models/intent-snips"));
    let content = std::fs::read(directory.join("model.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&content).unwrap();
    let tensors = metadata.tensors();
    tensors
        .values()
        .map(|info| info.shape.iter().product::<usize>() as u64)
        .sum()
}
