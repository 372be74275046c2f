//! The cost of hints: throughput with all of them on against all off, in pairs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{Common, Model, Replica, runner, verdict};

const RATIO_MIN: f64 = 0.99;

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Pairs of runs.
    #[arg(long, default_value = "15")]
    pairs: usize,
    /// Duration of each run in seconds.
    #[arg(long, default_value = "4")]
    run_seconds: u64,
    /// Scrapes a second; 0 for none.
    #[arg(long, default_value = "20")]
    scrapes: u32,
    /// Flags of the server with hints, as one word, to measure the cost of a part of them.
    #[arg(
        long,
        default_value = "--orca always --triton-metrics",
        allow_hyphen_values = true
    )]
    hints: String,
}

/// Runs the measurement. Returns whether the expectation held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let off = Replica::start(common, model, &["--slo", "off", "--orca", "off"]);
    let hints = ["--slo", "off"]
        .into_iter()
        .chain(flags.hints.split_whitespace());
    let on = Replica::start(common, model, &hints.collect::<Vec<_>>());
    let duration = Duration::from_secs(flags.run_seconds);
    let runner = runner(flags.run_seconds, 1, 256);
    let measure = |replica: &Replica| runner.saturate(&replica.target(), duration).unwrap();
    let (mut ratios, mut scrapes) = (Vec::new(), Vec::new());
    for pair in 0..flags.pairs {
        let with = || {
            let scraper = Scraper::start(on.admin, flags.scrapes);
            let rate = measure(&on);
            (rate, scraper.stop())
        };
        // The order alternates from pair to pair.
        let (before, (rate, seen)) = if pair % 2 == 0 {
            let before = measure(&off);
            (before, with())
        } else {
            let with = with();
            (measure(&off), with)
        };
        scrapes.extend(seen);
        ratios.push(rate / before);
        println!(
            "pair {pair}: {before:.0}/s without, {rate:.0}/s with: {:.4}",
            rate / before
        );
    }
    ratios.sort_by(f64::total_cmp);
    scrapes.sort_by(f64::total_cmp);
    let at = |sorted: &[f64], part: f64| sorted[(part * (sorted.len() - 1) as f64) as usize];
    println!(
        "ratios: median {:.4}, quartiles {:.4} to {:.4}",
        at(&ratios, 0.5),
        at(&ratios, 0.25),
        at(&ratios, 0.75)
    );
    if !scrapes.is_empty() {
        println!(
            "{} scrapes under full load: median {:.2} ms, p99 {:.2} ms, as the scraper sees it",
            scrapes.len(),
            at(&scrapes, 0.5) * 1e3,
            at(&scrapes, 0.99) * 1e3
        );
    }
    verdict(
        "throughput with hints at least 0.99 of that without",
        at(&ratios, 0.5) >= RATIO_MIN,
    )
}

/// Scrapes metrics at a fixed rate on one connection, as Prometheus does, on its own thread.
struct Scraper {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<f64>>,
}

impl Scraper {
    fn start(admin: SocketAddr, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut connection = BufReader::new(TcpStream::connect(admin).unwrap());
            let mut took = Vec::new();
            while rate > 0 && !seen.load(Ordering::Relaxed) {
                let since = Instant::now();
                scrape(&mut connection, admin);
                took.push(since.elapsed().as_secs_f64());
                std::thread::sleep((Duration::from_secs(1) / rate).saturating_sub(since.elapsed()));
            }
            took
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Reads one complete response with little work, since this thread shares its core with the generator.
fn scrape(connection: &mut BufReader<TcpStream>, admin: SocketAddr) {
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    let mut length = None;
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = Some(value.trim().parse().unwrap());
        }
    }
    let mut text = vec![0; length.unwrap()];
    connection.read_exact(&mut text).unwrap();
    assert!(text.starts_with(b"# HELP"));
}
