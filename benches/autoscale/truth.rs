//! Whether the published capacity keeps the objective, and whether a higher rate would.

use std::time::Duration;

use intentd::bench::{Measured, Objective};

use crate::traffic::Traffic;
use crate::{Common, Model, Replica, ask, verdict};

/// Share of the published capacity at which the objective must hold.
const SAFE: f64 = 0.9;

/// Range of the highest rate that holds, as multiples of the published capacity.
const RANGE: (f64, f64) = (0.95, 1.3);

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Objectives, separated by commas.
    #[arg(long, default_value = "20ms,50ms,200ms", value_delimiter = ',')]
    slo: Vec<String>,
    /// Steps of the bisection within the range; three find the rate to 5 %.
    #[arg(long, default_value = "3")]
    bisect: usize,
}

/// Runs the measurement. Returns whether the expectations held for all objectives.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    println!(
        "| model | objective | feasible | λ_slo/s | confidence | κ | τ0 µs, α µs/token, host µs a request, a batch, contention | p99 ms at 0.9·λ_slo | highest rate that holds/s | by λ_slo |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let rows: Vec<bool> = flags
        .slo
        .iter()
        .map(|slo| row(common, model, slo, flags.bisect))
        .collect();
    rows.into_iter().all(|held| held)
}

fn row(common: &Common, model: &Model, slo: &str, bisect: usize) -> bool {
    let replica = Replica::start(common, model, &["--slo", slo]);
    let target = replica.target();
    let objective = Objective {
        latency: humantime::parse_duration(slo).unwrap(),
        percentile: 99.0,
    };
    // Loads below the published capacity, from which the server learns the cost of requests.
    // How much a rate varies from second to second is known after some minutes.
    let repeated = if common.traffic == Traffic::Bursty {
        4
    } else {
        1
    };
    for share in [0.3, 0.5, 0.7, 0.7] {
        let rate = share * replica.hints().number("capacity_rps");
        ask(&target, rate, (repeated * common.seconds / 4, 7));
    }
    let hints = replica.hints();
    let capacity = hints.number("capacity_rps");
    let feasible = hints.number("slo_feasible") == 1.0;
    let try_at = |share: f64, seed| ask(&target, share * capacity, (common.seconds, seed));
    let safe = try_at(SAFE, 11);
    let highest = feasible.then(|| {
        let holds = |share: f64, seed| {
            let measured = try_at(share, seed);
            let holds = measured.holds(objective);
            eprintln!("  {share:.3}·λ_slo: {holds} ({})", said(&measured));
            holds
        };
        search(holds, bisect)
    });
    let calibration = |name: &str| hints.number(&format!("calibration.{name}"));
    println!(
        "| {} {:?} | {slo} | {} | {capacity:.1} | {:.2} | {:.2} | {:.1}, {:.2}, {:.1}, {:.1}, {:.2} | {:.2} | {:.1} | {:.2} |",
        common.model,
        common.traffic,
        if feasible { "yes" } else { "no" },
        hints.number("confidence"),
        calibration("kappa"),
        calibration("tau0_seconds") * 1e6,
        calibration("alpha_seconds") * 1e6,
        calibration("host_seconds") * 1e6,
        calibration("host_batch_seconds") * 1e6,
        calibration("contention_ratio"),
        safe.percentile(99.0).unwrap_or(f64::NAN),
        highest.unwrap_or(f64::NAN) * capacity,
        highest.unwrap_or(f64::NAN),
    );
    if !feasible {
        return true;
    }
    let held = verdict(
        &format!("{slo}: 99 of 100 within it at 0.9·λ_slo ({})", said(&safe)),
        safe.holds(objective),
    );
    let share = highest.unwrap_or(f64::NAN);
    let within = verdict(
        &format!("{slo}: the highest rate within 0.95 to 1.30 λ_slo ({share:.2})"),
        (RANGE.0..=RANGE.1).contains(&share),
    );
    // A pause, so that the next objective starts on an idle machine.
    std::thread::sleep(Duration::from_secs(1));
    held && within
}

/// Searches the highest rate that holds the objective, in the range and a little beyond it. Returns it as a
/// multiple of the capacity.
fn search(holds: impl Fn(f64, u64) -> bool, bisect: usize) -> f64 {
    let (mut low, mut high) = RANGE;
    if !holds(low, 21) {
        // Below the range: coarse steps show how far.
        return [0.9, 0.85, 0.8, 0.7, 0.6, 0.5]
            .into_iter()
            .find(|share| holds(*share, 22))
            .unwrap_or(0.0);
    }
    if holds(high, 23) {
        return [1.4, 1.6, 2.0]
            .into_iter()
            .take_while(|share| holds(*share, 24))
            .last()
            .unwrap_or(high + 0.01);
    }
    for step in 0..bisect {
        let middle = f64::midpoint(low, high);
        if holds(middle, 30 + step as u64) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn said(measured: &Measured) -> String {
    format!(
        "{:.1}/s, p99 {:.2} ms, {} of {} failed {:?} {:?}",
        measured.offered_rate(),
        measured.percentile(99.0).unwrap_or(f64::NAN),
        measured.offered - measured.answered,
        measured.offered,
        measured.failures(),
        measured.reasons,
    )
}
