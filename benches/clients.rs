//! Many concurrent clients against a server in this process: `cargo bench --bench clients`.
//! `-- --clients 64 --seconds 60 --requests 10000` changes the numbers; `--device cuda` and `--model DIR`
//! select another server than that of the embedded model on the CPU.
//!
//! First every client sends requests back to back, and each answer is compared with the one that the text
//! gets alone. Then a number of requests is sent, half of which are abandoned in flight. The offered requests
//! must equal those answered, refused and abandoned, and the queue must be empty at the end. The exit code is
//! 1 when a count is wrong.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use intentd::engine::RaggedBatch;
use intentd::metrics::Outcome;
use intentd::model::{Checkpoint, Text, TooLong};
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

#[path = "../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod support;

use support::http::{Connection, keep_alive};
use support::server::{TestServer, cpu_engine, eventually};

#[derive(Debug, Clone, Parser)]
struct Flags {
    /// Concurrent clients.
    #[arg(long, default_value = "64")]
    clients: usize,
    /// Duration of the first part in seconds.
    #[arg(long, default_value = "60")]
    seconds: u64,
    /// Requests of the second part, half of which are abandoned.
    #[arg(long, default_value = "10000")]
    requests: usize,
    /// The server's `--device`.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The server's `--model`.
    #[arg(long)]
    model: Option<String>,
    /// Largest difference of a score from that of the CPU engine in f32.
    #[arg(long, default_value = "1e-5")]
    tolerance: f64,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A text's request and the answer it gets from an engine that runs it alone.
#[derive(Debug)]
struct Probe {
    request: Vec<u8>,
    label: String,
    score: f64,
    /// The difference of the score to the next label's.
    margin: f64,
}

impl Flags {
    async fn server(&self) -> TestServer {
        let mut flags = vec!["--device", &self.device];
        if let Some(model) = &self.model {
            flags.extend(["--model", model]);
        }
        TestServer::start(&flags).await
    }
}

fn probes(flags: &Flags) -> Vec<Probe> {
    let checkpoint = Checkpoint::open_or_embedded(flags.model.as_deref().map(Path::new)).unwrap();
    let mut engine = cpu_engine(&checkpoint);
    let lines = std::fs::read_to_string("models/intent-snips/probes.jsonl").unwrap();
    let probe = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = value["text"].as_str().unwrap();
        let encoded = checkpoint
            .tokenizer
            .encode(&Text::Single(text.to_owned()), TooLong::Truncate)
            .unwrap();
        let mut batch = RaggedBatch::new();
        batch.push(&encoded.ids, &encoded.type_ids);
        let logits = engine.forward(&batch).unwrap();
        let scores = checkpoint.labels.scores(logits.row(0));
        let best = &scores[0];
        let second = scores.get(1).map_or(0.0, |score| score.score);
        let query: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        Probe {
            request: keep_alive(&format!("/predict?query={query}"), "application/json"),
            label: best.label.to_string(),
            score: f64::from(best.score),
            margin: f64::from(best.score - second),
        }
    };
    lines.lines().map(probe).collect()
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let probes = Arc::new(probes(&flags));
    let asked = runtime.block_on(ask(&flags, &probes));
    let given_up = runtime.block_on(give_up(&flags, &probes));
    if asked && given_up {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The first part: all clients send requests. Returns whether every answer was correct.
async fn ask(flags: &Flags, probes: &Arc<Vec<Probe>>) -> bool {
    let server = flags.server().await;
    let end = Instant::now() + Duration::from_secs(flags.seconds);
    let mut clients = JoinSet::new();
    for client in 0..flags.clients {
        let (probes, address) = (Arc::clone(probes), server.address);
        let tolerance = flags.tolerance;
        clients.spawn(async move {
            let mut connection = Connection::open(address).await;
            let (mut latencies, mut wrong) = (Vec::new(), 0);
            for probe in probes.iter().cycle().skip(client) {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                let answer = connection.send(&probe.request).await;
                latencies.push(start.elapsed());
                let right = answer.status == 200 && {
                    let json = answer.json();
                    // Either of two labels with almost equal scores is correct.
                    let even = probe.margin < 2.0 * tolerance;
                    (json["label"] == *probe.label || even)
                        && (json["score"].as_f64().unwrap() - probe.score).abs() < tolerance
                };
                wrong += usize::from(!right);
            }
            (latencies, wrong)
        });
    }
    let results = clients.join_all().await;
    let wrong: usize = results.iter().map(|(_, wrong)| wrong).sum();
    let mut latencies: Vec<Duration> = results.into_iter().flat_map(|(l, _)| l).collect();
    latencies.sort();
    let percentile = |p: usize| latencies[(latencies.len() - 1) * p / 100];
    let batches = server.metric("intentd_batch_size_count").await;
    let busy = server.metric("intentd_engine_busy_seconds_total").await;
    println!("clients               {}", flags.clients);
    println!("seconds               {}", flags.seconds);
    println!("requests              {}", latencies.len());
    println!("wrong or refused      {wrong}");
    println!(
        "requests a second     {:.0}",
        latencies.len() as f64 / flags.seconds as f64
    );
    println!(
        "texts in a batch      {:.1}",
        latencies.len() as f64 / batches
    );
    println!(
        "latency p50, p99      {:.2?}, {:.2?}",
        percentile(50),
        percentile(99)
    );
    println!(
        "engine busy           {:.1} % of the time",
        100.0 * busy / flags.seconds as f64
    );
    server.stop().await;
    wrong == 0
}

/// The second part: half of the requests are abandoned in flight. Returns whether the counters add up.
async fn give_up(flags: &Flags, probes: &Arc<Vec<Probe>>) -> bool {
    let server = flags.server().await;
    let lanes = flags.clients;
    let mut clients = JoinSet::new();
    for lane in 0..lanes {
        let (probes, address) = (Arc::clone(probes), server.address);
        let count = (lane..flags.requests).step_by(lanes).count();
        clients.spawn(async move {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(lane as u64);
            for number in 0..count {
                let request = &probes[(lane + number) % probes.len()].request;
                if number % 2 == 0 {
                    let mut connection = Connection::open(address).await;
                    // A slow device refuses some requests.
                    let status = connection.send(request).await.status;
                    assert!(matches!(status, 200 | 429), "{status}");
                } else {
                    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    stream.write_all(request).await.unwrap();
                    let patience = Duration::from_micros(random.random_range(0..3000));
                    tokio::time::sleep(patience).await;
                }
            }
        });
    }
    clients.join_all().await;
    let metrics = server.classifier.metrics().clone();
    eventually("nothing is in flight", || metrics.in_flight.get() == 0).await;
    let outcome = |outcome| metrics.ended(outcome);
    let (answered, refused) = (outcome(Outcome::Answered), outcome(Outcome::Refused));
    let (abandoned, abandoned_texts) = (outcome(Outcome::Abandoned), metrics.abandoned_texts.get());
    let computed = metrics.batch_size.get_sample_sum() as u64;
    println!("requests sent         {}", flags.requests);
    println!("answered              {answered}");
    println!("refused               {refused}");
    println!("abandoned             {abandoned}");
    println!("  never computed      {abandoned_texts}");
    println!("texts computed        {computed}");
    println!(
        "queue depth, in flight {}, {}",
        metrics.queue_depth.get(),
        metrics.in_flight.get()
    );
    let offered = answered + refused + abandoned;
    // A connection that is closed before its request is read never becomes a request.
    println!("closed before read    {}", flags.requests as u64 - offered);
    server.stop().await;
    metrics.queue_depth.get() == 0
        && computed + abandoned_texts == answered + abandoned
        && answered + refused >= flags.requests as u64 / 2
}
