//! How soon a step of the load shows, and how far the published rate overshoots it.

use std::time::{Duration, Instant};

use crate::{Common, Model, Replica, WARM_UP, ask, verdict};

/// Tries of each step, of which the median counts.
const TRIES: u64 = 5;

/// Seconds of the load before a step, and after it.
const BEFORE: u64 = 60;
const AFTER: u64 = 25;

/// Time after which the load counts as none.
const REST: Duration = Duration::from_secs(61);

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Requests per second after the step.
    #[arg(long, default_value = "20,200,2000", value_delimiter = ',')]
    rates: Vec<f64>,
    /// What each step begins from: rest, a fifth of the new rate, or each.
    #[arg(long, default_value = "rest,fifth", value_delimiter = ',')]
    from: Vec<Before>,
    /// The server's objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
}

/// The load before a step.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Before {
    Rest,
    Fifth,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    // A step counts at once only beyond what one replica should get, so that is to be little.
    let few = ["--slo", &flags.slo, "--target-utilization", "1"];
    let replica = Replica::start(common, model, &few);
    println!("| from | to | seconds to 90 % | highest, divided by the new rate |");
    println!("| --- | --- | --- | --- |");
    let mut held = true;
    for &rate in &flags.rates {
        for before in &flags.from {
            let before = match before {
                Before::Rest => 0.0,
                Before::Fifth => rate / 5.0,
            };
            let tries: Vec<(f64, f64)> = (0..TRIES)
                .map(|seed| step(&replica, before, rate, seed))
                .collect();
            let median = |part: fn(&(f64, f64)) -> f64| {
                let mut values: Vec<f64> = tries.iter().map(part).collect();
                values.sort_unstable_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let (seconds, top) = (median(|found| found.0), median(|found| found.1));
            let (most, above) = match rate {
                rate if rate < 100.0 => (5.0, 1.10),
                rate if rate < 1000.0 => (3.0, 1.05),
                _ => (3.0, 1.03),
            };
            println!("| {before:.0} | {rate:.0} | {seconds:.1} | {top:.3} |");
            held &= verdict(
                &format!("{before:.0} to {rate:.0}: 90 % within {most} s"),
                seconds <= most,
            );
            held &= verdict(
                &format!("{before:.0} to {rate:.0}: at most {above} of it"),
                top <= above,
            );
        }
    }
    held
}

/// Seconds from the step until nine tenths of it are published, and the highest rate published by the new one.
fn step(replica: &Replica, before: f64, after: f64, seed: u64) -> (f64, f64) {
    let target = replica.target();
    if before > 0.0 {
        ask(&target, before, (BEFORE, 100 + seed));
    } else {
        std::thread::sleep(REST);
    }
    let start = Instant::now();
    let asking = std::thread::spawn(move || ask(&target, after, (AFTER, 200 + seed)));
    let there = before + 0.9 * (after - before);
    let (mut reached, mut top) = (f64::INFINITY, 0.0_f64);
    while !asking.is_finished() && start.elapsed() < WARM_UP + Duration::from_secs(AFTER) {
        let published = replica.hints().number("offered_rps");
        let at = start.elapsed().as_secs_f64();
        if published >= there {
            reached = reached.min(at);
        }
        top = top.max(published);
        std::thread::sleep(Duration::from_millis(100));
    }
    let measured = asking.join().unwrap();
    (reached, top / measured.offered_rate())
}
