//! Whether servers that start publish what they can do: one after the other on a quiet machine, and many at once.

use std::time::Duration;

use crate::{Common, Model, Replica, ask, verdict};

/// Range of capacities on busy cores, by the median of the quiet ones.
const RANGE: (f64, f64) = (0.8, 1.25);

/// Largest ratio of two first capacities on a quiet machine.
const FIRST_MAX: f64 = 1.25;

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Servers that start one after the other.
    #[arg(long, default_value = "15")]
    quiet: usize,
    /// Servers that start at once.
    #[arg(long, default_value = "12")]
    at_once: usize,
    /// How often so many start.
    #[arg(long, default_value = "4")]
    rounds: usize,
    /// Load of each by its first capacity.
    #[arg(long, default_value = "0.05")]
    load: f64,
    /// The servers' objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let arguments = ["--slo", &*flags.slo];
    let capacity = |replica: &Replica| replica.hints().number("capacity_rps");
    let mut firsts = Vec::new();
    let mut later = Vec::new();
    for seed in 0..flags.quiet as u64 {
        let replica = Replica::start(common, model, &arguments);
        std::thread::sleep(Duration::from_secs(1));
        let first = capacity(&replica);
        ask(&replica.target(), flags.load * first, (20, seed));
        firsts.push(first);
        later.push(capacity(&replica));
    }
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let (firsts, later) = (sorted(&firsts), sorted(&later));
    println!("quiet, first: {firsts:.0?}\nquiet, after 20 s of load: {later:.0?}");
    let ratio = firsts[firsts.len() - 1] / firsts[0];
    let mut held = verdict(
        &format!("first capacities within a factor of 1.25 ({ratio:.2})"),
        ratio <= FIRST_MAX,
    );
    let middle = later[later.len() / 2];
    let mut busy = Vec::new();
    for round in 0..flags.rounds {
        let replicas: Vec<Replica> = std::thread::scope(|scope| {
            let start = || Replica::start(common, model, &arguments);
            let starting: Vec<_> = (0..flags.at_once).map(|_| scope.spawn(start)).collect();
            starting
                .into_iter()
                .map(|started| started.join().unwrap())
                .collect()
        });
        let rate = flags.load * middle;
        let targets = replicas.iter().map(Replica::target);
        let asking: Vec<_> = targets
            .map(|target| std::thread::spawn(move || ask(&target, rate, (20, round as u64))))
            .collect();
        for asked in asking {
            asked.join().unwrap();
        }
        for replica in &replicas {
            let hints = replica.hints();
            let learned = |name| hints.number(&format!("calibration.{name}"));
            let ratio = hints.number("capacity_rps") / middle;
            println!(
                "  {ratio:.2}: τ0 {:.0} µs, α {:.2} µs/token, host {:.0} µs a request and {:.0} a batch, contention {:.2}",
                learned("tau0_seconds") * 1e6,
                learned("alpha_seconds") * 1e6,
                learned("host_seconds") * 1e6,
                learned("host_batch_seconds") * 1e6,
                learned("contention_ratio"),
            );
            busy.push(ratio);
        }
    }
    let busy = sorted(&busy);
    println!("busy, by the median of quiet ones ({middle:.0}/s): {busy:.2?}");
    held &= verdict(
        "capacities on busy cores within 0.8 to 1.25",
        busy.iter().all(|ratio| (RANGE.0..=RANGE.1).contains(ratio)),
    );
    held
}
