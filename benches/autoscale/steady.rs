//! Whether the published rate of offered requests is steady under a steady load, right under bursts, and adds up over
//! replicas while one joins and leaves.

use std::thread;
use std::time::{Duration, Instant};

use intentd::bench::{Load, Loads};

use crate::{Common, Model, Replica, WARM_UP, ask, send, verdict};

/// Seconds until a load counts as steady.
const SETTLED: u64 = 60;

/// Seconds of each phase while a replica joins and leaves, and the seconds after which the sum has to be right.
const PHASE: u64 = 60;
const RIGHT_AFTER: Duration = Duration::from_secs(5);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Requests per second of all replicas together, while one joins and leaves.
    #[arg(long, default_value = "20,200,2000", value_delimiter = ',')]
    rates: Vec<f64>,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let loads = [
        ("poisson:20", 0.05),
        ("poisson:200", 0.02),
        ("bursts:1000/60", f64::INFINITY),
        ("bursts:50/1", f64::INFINITY),
    ];
    println!("| load | mean, by the true rate | standard deviation, by the mean |");
    println!("| --- | --- | --- |");
    let loads: Vec<bool> = thread::scope(|scope| {
        let run = |(load, most)| scope.spawn(move || steady(common, model, load, most));
        let running = loads.map(run);
        running.map(|load| load.join().unwrap()).to_vec()
    });
    println!("| requests/s | phase | sum of the replicas, by the true rate | lowest | highest |");
    println!("| --- | --- | --- | --- | --- |");
    let sums: Vec<bool> = flags
        .rates
        .iter()
        .map(|rate| joining(common, model, *rate))
        .collect();
    loads.into_iter().chain(sums).all(|held| held)
}

/// Whether the rate of one load is published: its mean within 5 %, its relative standard deviation at most `most`.
fn steady(common: &Common, model: &Model, load: &str, most: f64) -> bool {
    let replica = Replica::start(common, model, &["--target-utilization", "1"]);
    let Loads(loads) = load.parse().unwrap();
    let sent: Load = loads.into_iter().next().unwrap();
    let seconds = SETTLED + common.seconds;
    let target = replica.target();
    let start = Instant::now();
    let asking = thread::spawn(move || send(&target, &sent, (seconds, 3)));
    let mut rates = Vec::new();
    while !asking.is_finished() && start.elapsed() < WARM_UP + Duration::from_secs(seconds) {
        if start.elapsed() > WARM_UP + Duration::from_secs(SETTLED) {
            rates.push(replica.hints().number("offered_rps"));
        }
        thread::sleep(LOOK);
    }
    let truth = asking.join().unwrap().offered_rate();
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let square = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>();
    let deviation = (square / rates.len() as f64).sqrt() / mean;
    println!("| {load} | {:.3} | {deviation:.3} |", mean / truth);
    verdict(
        &format!("{load}: mean within 5 %, deviation at most {most}"),
        (mean / truth - 1.0).abs() <= 0.05 && deviation <= most,
    )
}

/// Whether the rates of two replicas, of three after one has joined, and of two after it has ended add up to the truth.
fn joining(common: &Common, model: &Model, rate: f64) -> bool {
    let start = || Replica::start(common, model, &["--target-utilization", "1"]);
    let mut replicas = vec![start(), start(), start()];
    let most = if rate < 100.0 { 0.1 } else { 0.05 };
    let mut held = true;
    for (phase, members) in [("two", 2), ("one joins", 3), ("one ends", 2)] {
        let asking: Vec<_> = (0..members)
            .map(|member| {
                let target = replicas[member].target();
                let share = rate / members as f64;
                // Without a pause between the phases.
                let seconds = PHASE - WARM_UP.as_secs();
                thread::spawn(move || ask(&target, share, (seconds, member as u64)))
            })
            .collect();
        if phase == "one ends" {
            // What it knew of its load goes with it.
            replicas.truncate(members);
        }
        let start = Instant::now();
        let mut sums = Vec::new();
        while start.elapsed() < Duration::from_secs(PHASE) {
            let rates = replicas.iter().map(Replica::hints);
            let sum: f64 = rates.map(|hints| hints.number("offered_rps")).sum();
            if start.elapsed() >= RIGHT_AFTER {
                sums.push(sum / rate);
            }
            thread::sleep(LOOK);
        }
        for asked in asking {
            asked.join().unwrap();
        }
        let mean = sums.iter().sum::<f64>() / sums.len() as f64;
        let lowest = sums.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = sums.iter().copied().fold(0.0, f64::max);
        println!("| {rate:.0} | {phase} | {mean:.3} | {lowest:.3} | {highest:.3} |");
        // Before the first phase there was nothing.
        held &= phase == "two"
            || verdict(
                &format!("{rate:.0}/s, {phase}: the sum within {most} of the truth from 5 s on"),
                1.0 - most <= lowest && highest <= 1.0 + most,
            );
    }
    held
}
