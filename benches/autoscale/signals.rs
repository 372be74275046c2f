//! Other signals at the same loads: engine utilization, requests in flight, queue depth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::http::get;
use crate::{Common, Model, Replica, ask, runtime};

const SHARES: [f64; 7] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5];

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The server's objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
}

/// Prints the signals. There is no expectation, so it returns true.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let replica = Replica::start(common, model, &["--slo", &flags.slo]);
    let target = replica.target();
    for share in [0.3, 0.5, 0.7, 0.7] {
        let rate = share * replica.hints().number("capacity_rps");
        ask(&target, rate, (common.seconds / 2, 7));
    }
    let capacity = replica.hints().number("capacity_rps");
    let wanted = replica.hints().number("target_concurrency");
    println!("λ_slo {capacity:.1} requests a second, L* {wanted:.2}");
    println!("| load by λ_slo | engine busy | in flight | by L* | waiting | p99 ms | demand · ρ |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for share in SHARES {
        let done = Arc::new(AtomicBool::new(false));
        let (admin, seen) = (replica.admin, Arc::clone(&done));
        let busy = busy_seconds(admin);
        let sampler = std::thread::spawn(move || samples(admin, &seen));
        let measured = ask(&target, share * capacity, (common.seconds, 8));
        done.store(true, Ordering::Relaxed);
        let [in_flight, waiting] = sampler.join().unwrap();
        let busy = (busy_seconds(admin) - busy) / (measured.took.as_secs_f64() + 2.0);
        let hints = replica.hints();
        println!(
            "| {share} | {busy:.2} | {in_flight:.2} | {:.2} | {waiting:.2} | {:.2} | {:.2} |",
            in_flight / wanted,
            measured.percentile(99.0).unwrap_or(f64::NAN),
            hints.number("demand_replicas") * hints.number("target_utilization"),
        );
    }
    true
}

fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap()
}

fn busy_seconds(admin: std::net::SocketAddr) -> f64 {
    let answer = runtime().block_on(get(admin, "/metrics", &[]));
    metric(&answer.body, "intentd_engine_busy_seconds_total")
}

/// Means of the requests in flight and of the queue depth.
fn samples(admin: std::net::SocketAddr, done: &AtomicBool) -> [f64; 2] {
    let runtime = runtime();
    let (mut sums, mut count) = ([0.0; 2], 0.0);
    std::thread::sleep(Duration::from_secs(2));
    while !done.load(Ordering::Relaxed) {
        let answer = runtime.block_on(get(admin, "/metrics", &[]));
        for (sum, name) in sums
            .iter_mut()
            .zip(["intentd_in_flight", "intentd_queue_depth"])
        {
            *sum += metric(&answer.body, name);
        }
        count += 1.0;
        std::thread::sleep(Duration::from_millis(37));
    }
    sums.map(|sum| sum / f64::max(count, 1.0))
}
