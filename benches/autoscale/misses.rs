//! Whether a missed objective raises the demand: with an objective that is too short, neighbours on the same cores, a CPU
//! limit, or fewer cores in mid-load.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use intentd::bench::{Measured, Objective, Target};

use crate::{Common, Model, Replica, WARM_UP, ask, verdict};

/// Time from the first bad second until the demand has to be one replica, and until it has to be right.
const REACTION: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_secs(30);

/// Largest relative error of the demand then.
const ERROR_MAX: f64 = 0.2;

/// Seconds of load before a disturbance begins.
const DISTURBED_AT: Duration = Duration::from_secs(5);

/// Loads, as shares of what was answered in time, that are tried to find the highest that holds.
const SHARES: [f64; 14] = [
    1.1, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1,
];

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The server's objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
    /// Requests per second.
    #[arg(long)]
    rate: Option<f64>,
    /// Load as a multiple of the published capacity, instead of a rate.
    #[arg(long, default_value = "0.8")]
    load: f64,
    /// CPU limit of the server in cores; needs root.
    #[arg(long)]
    limit: Option<f64>,
    /// Busy processes on the server's cores, from five seconds after the start of the load.
    #[arg(long, default_value = "0")]
    neighbours: usize,
    /// Cores that the server is left with from then on.
    #[arg(long)]
    left: Option<String>,
}

/// The hints at a moment of the load.
struct Moment {
    at: Duration,
    demand: f64,
    capacity: f64,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let group = flags.limit.map(CpuLimit::new);
    let enter = group.as_ref().map(|group| group.procs());
    let replica = Replica::start_in(common, model, &["--slo", &flags.slo], enter.as_deref());
    let target = replica.target();
    let capacity = || replica.hints().number("capacity_rps");
    if flags.neighbours > 0 || flags.left.is_some() {
        for share in [0.3, 0.5, 0.7] {
            ask(&target, share * capacity(), (15, 7));
        }
    }
    let published = capacity();
    let rate = flags.rate.unwrap_or(flags.load * published);
    println!(
        "{} {flags:?}: λ_slo {published:.0}/s at first, {rate:.0}/s offered",
        common.server
    );
    let seconds = common.seconds.max(45);
    let start = Instant::now();
    let asking = std::thread::spawn({
        let target = target.clone();
        move || ask(&target, rate, (seconds, 9))
    });
    let mut disturbance = None;
    let mut moments = Vec::new();
    while !asking.is_finished() {
        let hints = replica.hints();
        moments.push(Moment {
            at: start.elapsed(),
            demand: hints.number("demand_replicas"),
            capacity: hints.number("capacity_rps"),
        });
        if disturbance.is_none() && start.elapsed() >= WARM_UP + DISTURBED_AT {
            disturbance = Some(Disturbance::begin(common, flags, &replica));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let measured = asking.join().unwrap();
    let objective = Objective {
        latency: humantime::parse_duration(&flags.slo).unwrap(),
        percentile: 99.0,
    };
    let held = judge(
        &replica,
        &target,
        (rate, seconds),
        &measured,
        objective,
        &moments,
    );
    drop(disturbance);
    held
}

fn judge(
    replica: &Replica,
    target: &Target,
    (rate, seconds): (f64, u64),
    measured: &Measured,
    objective: Objective,
    moments: &[Moment],
) -> bool {
    let slo = objective.latency.as_secs_f64() * 1e3;
    let bad = measured.intervals.iter().position(|interval| {
        let is_late = interval.percentile(99.0).is_some_and(|p99| p99 > slo);
        is_late || (interval.answered as f64) < 0.99 * interval.offered as f64
    });
    let in_time = measured.answered_rate();
    println!(
        "answered {in_time:.0}/s, p99 {:.1} ms, refused {}; first bad second: {bad:?}",
        measured.percentile(99.0).unwrap_or(f64::NAN),
        measured.refused
    );
    for moment in moments.iter().step_by(8) {
        println!(
            "  {:5.1} s: demand {:.2}, λ_slo {:.0}/s",
            moment.at.as_secs_f64(),
            moment.demand,
            moment.capacity
        );
    }
    let Some(bad) = bad else {
        return verdict("the objective is missed", false);
    };
    // What is bad in the first second may have been so from the start.
    let bad = match bad as u64 * measured.interval {
        0 => Duration::ZERO,
        seconds => WARM_UP + Duration::from_secs(seconds),
    };
    let reached = moments
        .iter()
        .find(|moment| moment.at >= bad && moment.demand >= 1.0);
    let reached = reached.map(|moment| moment.at - bad);
    let reacts = verdict(
        &format!("demand of a replica within 5 s of the first bad second ({reached:?})"),
        reached.is_some_and(|reached| reached <= REACTION),
    );
    let settled = moments.iter().find(|moment| moment.at >= bad + SETTLED);
    let settled = settled.or(moments.last()).unwrap();
    let holds = SHARES
        .into_iter()
        .map(|share| share * in_time)
        .find(|rate| {
            let tried = ask(target, *rate, (seconds / 3, 21));
            println!(
                "  {rate:.0}/s: p99 {:.1} ms, {} of {} answered",
                tried.percentile(99.0).unwrap_or(f64::NAN),
                tried.answered,
                tried.offered
            );
            tried.holds(objective)
        });
    let target_share = replica.hints().number("target_utilization");
    let needed = rate / (target_share * holds.unwrap_or(f64::NAN));
    let ratio = settled.demand / needed;
    let is_right = verdict(
        &format!(
            "demand after 30 s {:.2}, needed {needed:.2} ({:.0}/s hold): {ratio:.2}",
            settled.demand,
            holds.unwrap_or(f64::NAN)
        ),
        (ratio - 1.0).abs() <= ERROR_MAX,
    );
    reacts && is_right
}

/// What takes cores from the server, until it is dropped.
struct Disturbance(Vec<Child>);

impl Disturbance {
    fn begin(common: &Common, flags: &Flags, replica: &Replica) -> Self {
        if let Some(cores) = &flags.left {
            let process = replica.process().to_string();
            let pin = Command::new("taskset")
                .args(["-a", "-p", "-c", cores, &process])
                .output();
            assert!(pin.unwrap().status.success(), "the server is pinned");
        }
        let busy = |_| {
            Command::new("taskset")
                .args(["-c", &common.server_core, "sh", "-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        };
        Self((0..flags.neighbours).map(busy).collect())
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A cgroup whose CPU time is limited.
struct CpuLimit {
    group: PathBuf,
}

impl CpuLimit {
    fn new(cores: f64) -> Self {
        let quota = (cores * 1e5).round();
        let name = format!("intentd-bench-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/cpu");
        let group = if first.join("cpu.cfs_quota_us").exists() {
            let group = first.join(name);
            std::fs::create_dir(&group).unwrap();
            std::fs::write(group.join("cpu.cfs_quota_us"), quota.to_string()).unwrap();
            group
        } else {
            let group = Path::new("/sys/fs/cgroup").join(name);
            std::fs::create_dir(&group).unwrap();
            std::fs::write(group.join("cpu.max"), format!("{quota} 100000")).unwrap();
            group
        };
        Self { group }
    }

    fn procs(&self) -> PathBuf {
        self.group.join("cgroup.procs")
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        // The server has ended by then, for it was started later.
        let _ = std::fs::remove_dir(&self.group);
    }
}
