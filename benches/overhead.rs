//! The cost of a request outside the engine: `cargo bench --bench overhead`.
//!
//! Two servers in separate processes alternate under full load from 64 connections: intentd with the embedded
//! model, and the minimum with the same libraries, an axum server whose `GET /predict` answers a constant.
//! The operating system reports the CPU time of each process (user and system). The CPU time of forward
//! passes, measured by the clock of their thread, is subtracted from that of intentd.
//!
//! Then a single client alternates between requests and pauses, which shows the latency that the server adds
//! to a forward pass. The longer the pause, the deeper the sleep that a core must wake from. The latency of
//! the constant server shows the part of the machine.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, header};
use clap::{Parser, ValueEnum};
use intentd::bench::{Options, Runner, Target, read_texts};
use intentd::config::{Config, Platform, ServeArgs};
use intentd::engine::{Cpu, CpuOptions, Engine, EngineError, Logits, RaggedBatch};
use intentd::model::Checkpoint;
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, Parser)]
struct Flags {
    /// Measurements of each server.
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// Duration of each measurement in seconds.
    #[arg(long, default_value = "4")]
    seconds: u64,
    /// Runs this process as one of the servers.
    #[arg(long, hide = true)]
    serve: Option<Kind>,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Intentd,
    Constant,
}

fn main() {
    let flags = Flags::parse();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().build().unwrap()
    };
    match flags.serve {
        Some(Kind::Intentd) => runtime().block_on(intentd()),
        Some(Kind::Constant) => runtime().block_on(constant()),
        None => compare(&flags),
    }
}

/// The work of the engine: the CPU time of its thread in forward passes, and the wall clock time of each pass
/// since the last query.
#[derive(Debug, Default)]
struct Work {
    cpu: Duration,
    passes: Vec<Duration>,
}

/// An engine that measures itself.
#[derive(Debug)]
struct Measured {
    engine: Cpu,
    work: Arc<Mutex<Work>>,
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

impl Engine for Measured {
    fn description(&self) -> String {
        self.engine.description()
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let (cpu, wall) = (thread_cpu(), Instant::now());
        let result = self.engine.submit(batch);
        let mut work = self.work.lock().unwrap();
        work.passes.push(wall.elapsed());
        work.cpu += thread_cpu() - cpu;
        result
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.engine.collect()
    }
}

/// Serves until standard input ends. Answers each line with the CPU time of all forward passes so far and the
/// median wall clock time of those since the last line, in microseconds.
async fn intentd() {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }
    let flags = [
        "intentd",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--admin-port",
        "off",
    ];
    let config = Config::new(Command::parse_from(flags).serve, &Platform::default()).unwrap();
    let work: Arc<Mutex<Work>> = Arc::default();
    let shared = Arc::clone(&work);
    let running = intentd::server::start_with(&config, move || {
        let checkpoint = Checkpoint::embedded()?;
        // One thread, so that its CPU clock covers the whole forward pass.
        let engine = Cpu::load(&checkpoint, CpuOptions::f32(NonZeroUsize::MIN))?;
        let measured = Measured {
            engine,
            work: shared,
        };
        Ok((checkpoint, Box::new(measured) as Box<dyn Engine>))
    });
    let running = running.unwrap();
    while !running.classifier.is_loaded() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    announce(running.address.expect("it serves over TCP"));
    let (asked, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            line.unwrap();
            let (cpu, mut passes) = {
                let mut work = work.lock().unwrap();
                (work.cpu, std::mem::take(&mut work.passes))
            };
            passes.sort();
            let median = passes.get(passes.len() / 2).copied().unwrap_or_default();
            println!("{} {}", cpu.as_micros(), median.as_micros());
        }
        asked.send(()).unwrap();
    });
    running.until(async { end.await.unwrap() }).await.unwrap();
}

/// The minimal HTTP server with the same libraries.
async fn constant() {
    let answer = async || {
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], "PlayMusic")
    };
    let routes = axum::Router::new().route("/predict", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    announce(listener.local_addr().unwrap());
    std::thread::spawn(|| {
        for _ in std::io::stdin().lines() {
            println!("0 0");
        }
        // All clients have had their answers, so nothing is lost.
        std::process::abort();
    });
    axum::serve(listener, routes).await.unwrap();
}

fn announce(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

/// A server in a process of its own.
struct Server {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
    target: Target,
}

impl Server {
    fn start(kind: Kind) -> Self {
        let name = kind.to_possible_value().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--serve", name.get_name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut address = String::new();
        output.read_line(&mut address).unwrap();
        let address: SocketAddr = address.trim().parse().unwrap();
        let url = format!("http://{address}/predict?query={{query}}");
        Self {
            process,
            input,
            output,
            address,
            target: url.parse().unwrap(),
        }
    }

    /// The CPU time of the process (user and system), the CPU time of its forward passes, and the median wall
    /// clock time of those since the last call.
    fn times(&mut self) -> (Duration, Duration, Duration) {
        writeln!(self.input.as_mut().unwrap()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let (cpu, wall) = line.trim().split_once(' ').unwrap();
        let micros = |text: &str| Duration::from_micros(text.parse().unwrap());
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // proc(5): state is the first field after the name in brackets; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
        let per_second = rustix::param::clock_ticks_per_second();
        let total = Duration::from_secs_f64((ticks(11) + ticks(12)) as f64 / per_second as f64);
        (total, micros(cpu), micros(wall))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        self.process.wait().unwrap();
    }
}

/// Pauses of the single client.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(10),
];
/// Requests of the single client for each pause.
const ASKED: usize = 200;

fn compare(flags: &Flags) {
    let duration = Duration::from_secs(flags.seconds);
    let runner = Runner {
        options: Options {
            warm_up: Duration::ZERO,
            duration,
            timeout: Duration::from_secs(5),
            connections: 64,
            streams: 1,
            workers: 1,
            seed: 1,
        },
        texts: read_texts(None).unwrap(),
    };
    let mut servers = [Kind::Intentd, Kind::Constant].map(Server::start);
    println!("CPU time of a request in µs, 64 connections");
    println!("round | intentd | of it forward passes | constant | ratio outside of them");
    let mut ratios = Vec::new();
    for round in 1..=flags.rounds {
        let [(total, forward), (constant, _)] =
            [0, 1].map(|index| full_load(&runner, &mut servers[index], duration));
        let ratio = (total - forward) / constant;
        ratios.push(ratio);
        println!("{round} | {total:.1} | {forward:.1} | {constant:.1} | {ratio:.2}");
    }
    println!("median ratio: {:.2}", median(&mut ratios));
    println!("Latency of a single client in µs, medians");
    println!("pause | intentd | of it the forward pass | added | constant");
    for pause in PAUSES {
        let mut rows = [const { Vec::new() }; 4];
        for _ in 0..flags.rounds {
            let [(latency, forward), (constant, _)] =
                [0, 1].map(|index| low_load(&mut servers[index], pause));
            for (row, value) in rows
                .iter_mut()
                .zip([latency, forward, latency - forward, constant])
            {
                row.push(value);
            }
        }
        let [latency, forward, added, constant] = rows.map(|mut row| median(&mut row));
        println!("{pause:?} | {latency:.0} | {forward:.0} | {added:.0} | {constant:.0}");
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of a request, and of its share of the forward passes, in microseconds.
fn full_load(runner: &Runner, server: &mut Server, duration: Duration) -> (f64, f64) {
    runner.saturate(&server.target, duration / 4).unwrap();
    let before = server.times();
    let rate = runner.saturate(&server.target, duration).unwrap();
    let after = server.times();
    let requests = rate * duration.as_secs_f64();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / requests;
    (each(after.0 - before.0), each(after.1 - before.1))
}

/// The median latency and the median time of a forward pass, in microseconds.
fn low_load(server: &mut Server, pause: Duration) -> (f64, f64) {
    let mut client = TcpStream::connect(server.address).unwrap();
    client.set_nodelay(true).unwrap();
    let request = b"GET /predict?query=play%20some%20jazz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut latencies = Vec::new();
    let mut answer = [0; 4096];
    server.times();
    for _ in 0..ASKED {
        std::thread::sleep(pause);
        let start = Instant::now();
        client.write_all(request).unwrap();
        let read = client.read(&mut answer).unwrap();
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
        assert!(
            answer[..read].ends_with(b"PlayMusic"),
            "a whole answer in one piece"
        );
    }
    (median(&mut latencies), server.times().2.as_secs_f64() * 1e6)
}
