//! What hints cost: throughput with everything on against everything off, in pairs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::http::get;
use crate::{Common, Model, Replica, runner, runtime, verdict};

const RATIO_MIN: f64 = 0.99;

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Pairs of runs.
    #[arg(long, default_value = "15")]
    pairs: usize,
    /// Seconds of each run.
    #[arg(long, default_value = "4")]
    run_seconds: u64,
    /// Scrapes a second.
    #[arg(long, default_value = "20")]
    scrapes: u32,
}

/// Whether it held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let off = Replica::start(common, model, &["--slo", "off", "--orca", "off"]);
    let on = Replica::start(
        common,
        model,
        &["--slo", "off", "--orca", "always", "--triton-metrics"],
    );
    let duration = Duration::from_secs(flags.run_seconds);
    let runner = runner(flags.run_seconds, 1);
    let measure = |replica: &Replica| runner.saturate(&replica.target(), duration).unwrap();
    let (mut ratios, mut scrapes) = (Vec::new(), Vec::new());
    for pair in 0..flags.pairs {
        let with = || {
            let scraper = Scraper::start(on.admin, flags.scrapes);
            let rate = measure(&on);
            (rate, scraper.stop())
        };
        // Who comes first takes turns.
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
    println!(
        "{} scrapes under full load: median {:.2} ms, p99 {:.2} ms, as the scraper sees it",
        scrapes.len(),
        at(&scrapes, 0.5) * 1e3,
        at(&scrapes, 0.99) * 1e3
    );
    verdict(
        "throughput with hints at least 0.99 of that without",
        at(&ratios, 0.5) >= RATIO_MIN,
    )
}

/// Reads metrics so many times a second, on a thread of its own.
struct Scraper {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<f64>>,
}

impl Scraper {
    fn start(admin: std::net::SocketAddr, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = runtime();
            let mut took = Vec::new();
            while !seen.load(Ordering::Relaxed) {
                let since = Instant::now();
                let answer = runtime.block_on(get(admin, "/metrics", &[]));
                took.push(since.elapsed().as_secs_f64());
                assert_eq!(answer.status, 200);
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
