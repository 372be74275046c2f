//! Texts that are made to be expensive, from many clients, while other clients send short requests.
//!
//! The cost of a text must depend on the part that the model sees and not on its length, and the latency of
//! a client must not depend on the texts of others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Client, Outcome, get, post};
use crate::support::long_texts::bodies;
use crate::support::process::Server;
use crate::{resident, runtime, verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    #[arg(long, default_value = "5")]
    minutes: f64,
    /// Clients that send long texts.
    #[arg(long, default_value = "64")]
    clients: usize,
    /// Size of a long text in bytes.
    #[arg(long, default_value = "2000000")]
    bytes: usize,
    /// Additional flags of the server, as one word.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server: String,
    /// The command that starts the server, as one word, such as a program that limits its memory.
    #[arg(long, default_value = "env", allow_hyphen_values = true)]
    under: String,
    /// Names of the kinds of texts to send. The default is all.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
}

/// Largest memory of the server beyond that of the idle server.
const GROWTH_MAX_MB: f64 = 300.0;

/// Largest growth of the 99th percentile for neighbours that send one word.
const ONE_MAX: f64 = 2.0;
/// Largest growth of the 99th percentile for neighbours that send lists of 120 texts.
const LIST_MAX: f64 = 3.0;

/// Seconds without long texts, before and after.
const QUIET: u64 = 30;

#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    end: AtomicBool,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(flags: &Flags) -> bool {
    let mut arguments = vec!["--port", "0"];
    arguments.extend(flags.server.split_whitespace());
    let under: Vec<&str> = flags.under.split_whitespace().collect();
    let mut server = Server::start_under(&under, &arguments);
    let empty = std::io::BufReader::new(Box::new(std::io::empty()) as Box<_>);
    let mut log = std::mem::replace(&mut server.log, empty);
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let (address, process) = (server.address, server.child.id());
    let runtime = runtime();
    runtime.block_on(server.ready());
    let before = runtime.block_on(neighbours(address, Duration::from_secs(QUIET)));
    let idle = resident(process) / 1e6;
    let seen = Arc::new(Seen::default());
    let senders = send(address, flags, &seen);
    let peak = watch(process, &seen);
    let during = runtime.block_on(neighbours(
        address,
        Duration::from_secs_f64(60.0 * flags.minutes),
    ));
    seen.end.store(true, Ordering::Relaxed);
    senders.join().unwrap();
    let peak = peak.join().unwrap() / 1e6;
    let after = runtime.block_on(neighbours(address, Duration::from_secs(QUIET)));
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "long texts: {} answered or refused for what they are, {} refused for the load, {} lost; memory {idle:.0} \
         MB idle, {peak:.0} MB at most, {:.0} MB in the end",
        load(&seen.answered),
        load(&seen.refused),
        load(&seen.lost),
        resident(process) / 1e6,
    );
    println!("| neighbours | quiet p50, p99 ms | beside long texts | after | refused |");
    println!("| --- | --- | --- | --- | --- |");
    let mut held = verdict(
        &format!(
            "memory grows by {:.0} MB (at most {GROWTH_MAX_MB})",
            peak - idle
        ),
        peak - idle <= GROWTH_MAX_MB,
    );
    for (name, place, most) in [("one word", 0, ONE_MAX), ("120 texts", 1, LIST_MAX)] {
        let of = |seen: &[Latencies; 2]| seen[place].said();
        println!(
            "| {name} | {} | {} | {} | {} |",
            of(&before),
            of(&during),
            of(&after),
            during[place].refused
        );
        let ratio = during[place].percentile(99.0) / before[place].percentile(99.0);
        held &= verdict(
            &format!("{name}: p99 {ratio:.2} times the quiet one (at most {most})"),
            ratio <= most,
        );
    }
    held
}

/// Starts clients that send long texts of all kinds in turn. Their thread has the lowest priority, since they
/// represent clients on other machines.
fn send(address: SocketAddr, flags: &Flags, seen: &Arc<Seen>) -> std::thread::JoinHandle<()> {
    let is_wanted =
        |name: &str| flags.kinds.is_empty() || flags.kinds.iter().any(|kind| kind == name);
    let bodies = bodies(flags.bytes).into_iter();
    let requests: Vec<Vec<u8>> = bodies
        .filter(|body| is_wanted(body.kind))
        .map(|body| post(body.bytes))
        .collect();
    let (requests, seen, clients) = (Arc::new(requests), Arc::clone(seen), flags.clients);
    std::thread::spawn(move || {
        // If that is refused, the clients affect the neighbours' latency more.
        let _ = rustix::process::nice(19);
        runtime().block_on(async move {
            let mut tasks = JoinSet::new();
            for number in 0..clients {
                let (requests, seen) = (Arc::clone(&requests), Arc::clone(&seen));
                tasks.spawn(async move { one_sender(address, &requests, number, &seen).await });
            }
            tasks.join_all().await;
        });
    })
}

async fn one_sender(address: SocketAddr, requests: &[Vec<u8>], number: usize, seen: &Seen) {
    let mut open: Option<Client> = None;
    for round in number.. {
        if seen.end.load(Ordering::Relaxed) {
            return;
        }
        let mut client = match open.take() {
            Some(client) => client,
            None => Client::open(address).await.unwrap(),
        };
        let outcome = client.ask(&requests[round % requests.len()]).await;
        let counter = match outcome {
            Outcome::Answered(429 | 503 | 504, _) => &seen.refused,
            Outcome::Answered(..) => &seen.answered,
            Outcome::Lost => &seen.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(outcome, Outcome::Answered(429, _)) {
            // The client backs off after a 429.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        open = matches!(outcome, Outcome::Answered(_, true)).then_some(client);
    }
}

/// The most memory that the server takes.
fn watch(process: u32, seen: &Arc<Seen>) -> std::thread::JoinHandle<f64> {
    let seen = Arc::clone(seen);
    std::thread::spawn(move || {
        let mut peak = 0.0_f64;
        while !seen.end.load(Ordering::Relaxed) {
            peak = peak.max(resident(process));
            std::thread::sleep(Duration::from_millis(100));
        }
        peak
    })
}

#[derive(Debug, Default)]
struct Latencies {
    seconds: Vec<f64>,
    refused: u64,
}

impl Latencies {
    fn percentile(&self, percentile: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() as f64 * percentile / 100.0) as usize;
        sorted[place.min(sorted.len() - 1)] * 1e3
    }

    fn said(&self) -> String {
        let (median, tail) = (self.percentile(50.0), self.percentile(99.0));
        format!("{median:.2}, {tail:.2} (of {})", self.seconds.len())
    }
}

/// The latencies of neighbours that send one word, and lists of 120 short texts, at times fixed in advance.
async fn neighbours(address: SocketAddr, duration: Duration) -> [Latencies; 2] {
    // New words each time, since unknown words must not be slower.
    let one = |number| get(&format!("music{number}"), "");
    let list = |number| {
        let list: Vec<String> = (0..120)
            .map(|n| format!("play song {n} of {number}"))
            .collect();
        post(serde_json::to_string(&list).unwrap())
    };
    let one = neighbour(address, one, Duration::from_millis(10), duration);
    let lists = neighbour(address, list, Duration::from_millis(200), duration);
    tokio::join!(one, lists).into()
}

async fn neighbour(
    address: SocketAddr,
    request: impl Fn(usize) -> Vec<u8>,
    period: Duration,
    duration: Duration,
) -> Latencies {
    let start = Instant::now();
    let mut asked = JoinSet::new();
    let mut due = start;
    let mut number = 0;
    let mut idle: Vec<Client> = Vec::new();
    let mut latencies = Latencies::default();
    let mut take = |(client, outcome, seconds): (Client, Outcome, f64), idle: &mut Vec<Client>| {
        latencies.seconds.push(seconds);
        match outcome {
            Outcome::Answered(200, true) => idle.push(client),
            other => {
                println!("a neighbour: {other:?} after {seconds:.3} s");
                latencies.refused += 1;
            }
        }
    };
    while due < start + duration {
        tokio::time::sleep_until(due.into()).await;
        while let Some(done) = asked.try_join_next() {
            take(done.unwrap(), &mut idle);
        }
        idle.retain(|client| !client.is_closed());
        let mut client = match idle.pop() {
            Some(client) => client,
            None => Client::open(address).await.unwrap(),
        };
        let request = request(number);
        number += 1;
        asked.spawn(async move {
            let outcome = client.ask(&request).await;
            (client, outcome, due.elapsed().as_secs_f64())
        });
        due += period;
    }
    while let Some(done) = asked.join_next().await {
        take(done.unwrap(), &mut idle);
    }
    latencies
}
