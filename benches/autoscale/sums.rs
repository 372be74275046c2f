//! What the scaler says while one of three replicas refuses connections, hangs, answers garbage or restarts, at every second
//! against the truth.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use intentd::bench::Target;

use crate::support::scaler::{Answering, Scaler, demand};
use crate::{Common, Model, Replica, WARM_UP, ask, verdict};

/// Seconds in which all three replicas serve, and in which one does not.
const WHOLE: u64 = 45;
const BROKEN: u64 = 60;

/// Seconds until the load is shared with a replica that restarts.
const RESTARTED_AFTER: u64 = 4;

/// Part of a replica's capacity that a demand of 1 stands for, so that a demand of some replicas is little work.
const UTILIZATION: &str = "2";

/// The sum may never be less than this part of the truth, except for some seconds after a restart: a new process has seen
/// nothing yet.
const LEAST: f64 = 0.9;
const RESTART_SECONDS: usize = 10;

/// And never more than this: while a replica hangs, its last demand and that of the others who took over its load count.
const MOST: f64 = 1.1;
const MOST_HANGING: f64 = 1.1 * 1.5;

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Requests per second of all replicas together.
    #[arg(long, default_value = "600")]
    rate: f64,
    /// Writes the sums of all seconds to this file.
    #[arg(long)]
    csv: Option<PathBuf>,
}

/// What happens to the third replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Refuses,
    Hangs,
    Garbage,
    Restarts,
}

/// Three replicas, one of which can be broken and repaired.
struct Replicas<'a> {
    common: &'a Common,
    model: &'a Model,
    sound: [Replica; 2],
    third: Option<Replica>,
    /// The third's port for operators, which it keeps.
    admin_port: String,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let usual = ["--target-utilization", UTILIZATION];
    let sound = [(); 2].map(|()| Replica::start(common, model, &usual));
    // No client is given a port from this range by the system.
    let admin = (20_000..21_000)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap();
    let mut replicas = Replicas {
        common,
        model,
        sound,
        third: None,
        admin_port: admin.port().to_string(),
    };
    replicas.start_third();
    let places = [replicas.sound[0].admin, replicas.sound[1].admin, admin].map(|at| at.to_string());
    let scaler = Scaler::start_plain(&["--replicas", &places.join(",")]);
    ask_all(replicas.targets(true), flags.rate, WHOLE);
    let mut table = Vec::new();
    let mut held = true;
    println!("| the third replica | lowest sum, by the truth | highest | seconds beyond 10 % |");
    println!("| --- | --- | --- | --- |");
    for fault in [
        Fault::Refuses,
        Fault::Garbage,
        Fault::Restarts,
        Fault::Hangs,
    ] {
        let targets = replicas.targets(true);
        let whole = watch(&scaler, WHOLE, || ask_all(targets, flags.rate, WHOLE));
        let truth = whole[whole.len() / 2..].iter().sum::<f64>() / (whole.len() / 2) as f64;
        let broken = replicas.suffer(fault, admin);
        let sums = if fault == Fault::Restarts {
            watch(&scaler, BROKEN, || replicas.restart(flags.rate))
        } else {
            let targets = replicas.targets(false);
            watch(&scaler, BROKEN, || ask_all(targets, flags.rate, BROKEN))
        };
        let ratios: Vec<f64> = sums.into_iter().map(|sum| sum / truth).collect();
        drop(broken);
        replicas.recover(fault);
        held &= judge(fault, &ratios);
        table.push((fault, ratios));
    }
    if let Some(file) = &flags.csv {
        let seconds = 0..BROKEN as usize;
        let lines = seconds.map(|second| {
            let ratios = table.iter().map(|(_, ratios)| match ratios.get(second) {
                Some(ratio) => format!(",{ratio:.3}"),
                None => ",".to_owned(),
            });
            format!("{second}{}\n", ratios.collect::<String>())
        });
        let head = "second,refuses,garbage,restarts,hangs\n".to_owned();
        std::fs::write(file, head + &lines.collect::<String>()).unwrap();
    }
    held
}

/// Whether the sums of all seconds, by the truth, are as they should be.
fn judge(fault: Fault, ratios: &[f64]) -> bool {
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ratios.iter().copied().fold(0.0, f64::max);
    let beyond = ratios.iter().filter(|ratio| (*ratio - 1.0).abs() > 0.1);
    println!(
        "| {fault:?} | {lowest:.3} | {highest:.3} | {} |",
        beyond.count()
    );
    let (most, seconds) = match fault {
        Fault::Hangs | Fault::Garbage => (MOST_HANGING, 0),
        Fault::Refuses => (MOST, 0),
        Fault::Restarts => (MOST, RESTART_SECONDS),
    };
    let low = ratios.iter().filter(|ratio| **ratio < LEAST).count();
    verdict(
        &format!(
            "{fault:?}: at most {most:.2} of the truth, and at least {LEAST} but for {seconds} s"
        ),
        highest <= most && low <= seconds,
    )
}

impl Replicas<'_> {
    fn start_third(&mut self) {
        let flags = [
            "--target-utilization",
            UTILIZATION,
            "--admin-port",
            &self.admin_port,
        ];
        self.third = Some(Replica::start(self.common, self.model, &flags));
    }

    /// Those that take load.
    fn targets(&self, with_third: bool) -> Vec<Target> {
        let third = self.third.as_ref().filter(|_| with_third);
        self.sound
            .iter()
            .chain(third)
            .map(Replica::target)
            .collect()
    }

    /// Breaks the third replica. What is returned answers in its place as long as it lives.
    fn suffer(
        &mut self,
        fault: Fault,
        admin: SocketAddr,
    ) -> Option<(tokio::runtime::Runtime, Answering)> {
        match fault {
            Fault::Refuses => self.third = None,
            Fault::Hangs => self.third.as_ref().unwrap().server.kill("STOP"),
            Fault::Restarts => {}
            Fault::Garbage => {
                self.third = None;
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                let text = "<html>It works!</html>".to_owned();
                let answering = runtime.block_on(Answering::start(admin, Some(text)));
                return Some((runtime, answering));
            }
        }
        None
    }

    /// Ends the third replica and starts it again, under load.
    fn restart(&mut self, rate: f64) {
        self.third = None;
        let sound = self.targets(false);
        let asking = thread::spawn(move || ask_all(sound, rate, RESTARTED_AFTER));
        self.start_third();
        asking.join().unwrap();
        ask_all(self.targets(true), rate, BROKEN - RESTARTED_AFTER);
    }

    fn recover(&mut self, fault: Fault) {
        match fault {
            Fault::Refuses | Fault::Garbage => self.start_third(),
            Fault::Hangs => self.third.as_ref().unwrap().server.kill("CONT"),
            Fault::Restarts => {}
        }
    }
}

/// Shares a load over all targets.
fn ask_all(targets: Vec<Target>, rate: f64, seconds: u64) {
    let share = rate / targets.len() as f64;
    let asking: Vec<_> = targets
        .into_iter()
        .zip(0_u64..)
        .map(|(target, seed)| {
            thread::spawn(move || ask(&target, share, (seconds - WARM_UP.as_secs(), seed)))
        })
        .collect();
    for asked in asking {
        asked.join().unwrap();
    }
}

/// The sums of each second while `load` runs.
fn watch(scaler: &Scaler, seconds: u64, load: impl FnOnce() + Send) -> Vec<f64> {
    thread::scope(|scope| {
        let loading = scope.spawn(load);
        let start = Instant::now();
        let mut sums = Vec::new();
        let runtime = crate::runtime();
        let mut client = runtime.block_on(scaler.client());
        for second in 1..=seconds {
            let due = start + Duration::from_secs(second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            sums.push(runtime.block_on(demand(&mut client, &[])).unwrap().0);
        }
        loading.join().unwrap();
        sums
    })
}
