//! The demand while most requests are refused, and after the last request.

use std::time::{Duration, Instant};

use crate::{Common, Model, Replica, ask, verdict};

/// Offered load as a multiple of the capacity.
const FACTOR: f64 = 5.0;

/// Largest relative error of the demand. Expected is the offered rate by the target rate of one server.
const ERROR_MAX: f64 = 0.15;

/// Time after the last request within which the demand must become zero.
const IDLE: Duration = Duration::from_secs(90);

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The server's objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
}

/// Runs the measurement. Returns whether the expectation held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let replica = Replica::start(common, model, &["--slo", &flags.slo]);
    let target = replica.target();
    for share in [0.3, 0.5, 0.7] {
        let rate = share * replica.hints().number("capacity_rps");
        ask(&target, rate, (common.seconds / 3, 7));
    }
    let rate = FACTOR * replica.hints().number("capacity_rps");
    println!(
        "| seconds | offered/s | λ_slo/s | demand | offered/(ρ·λ_slo) | utilization | refused/s | queue |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let seconds = common.seconds.max(60);
    let start = Instant::now();
    let asking = std::thread::spawn({
        let target = target.clone();
        move || ask(&target, rate, (seconds, 9))
    });
    let mut error = f64::INFINITY;
    while !asking.is_finished() {
        std::thread::sleep(Duration::from_secs(10));
        if asking.is_finished() {
            break;
        }
        let hints = replica.hints();
        let number = |name| hints.number(name);
        let demand = number("demand_replicas");
        let expected = rate / (number("target_utilization") * number("capacity_rps"));
        error = (demand / expected - 1.0).abs();
        println!(
            "| {:.0} | {:.0} | {:.1} | {demand:.2} | {expected:.2} | {:.2} | {:.0} | {:.0} |",
            start.elapsed().as_secs_f64(),
            number("offered_rps"),
            number("capacity_rps"),
            number("utilization"),
            number("refused_rps"),
            number("queue_depth"),
        );
    }
    let measured = asking.join().unwrap();
    println!(
        "offered {:.0}/s, answered {:.0}/s, refused {}",
        measured.offered_rate(),
        measured.answered_rate(),
        measured.refused
    );
    let sent = measured.offered_rate() / rate;
    let held = verdict(
        &format!("demand within 15 % of what is offered ({error:.3}; {sent:.2} of it was sent)"),
        error <= ERROR_MAX,
    );
    let last = Instant::now();
    let mut zero = None;
    while last.elapsed() < IDLE + Duration::from_secs(10) {
        if replica.hints().number("demand_replicas") == 0.0 {
            zero = Some(last.elapsed());
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let idle = verdict(
        &format!("demand 0 within 90 s of the last request ({zero:?})"),
        zero.is_some_and(|zero| zero <= IDLE),
    );
    held && idle
}
