//! Goodput, refusals, latency and memory under more load than the engine's capacity.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use intentd::bench::{Expected, Load, Loads, Measured, Options, Runner, Target, read_texts};

use crate::support::checkpoint::{Shape, catalog, write};
use crate::support::process::Server;
use crate::{resident, runtime, verdict};

const FACTORS: [f64; 5] = [0.5, 1.0, 2.0, 5.0, 10.0];

/// Least goodput at the highest load, as a share of the best.
const GOODPUT_MIN: f64 = 0.95;
/// Largest growth of the memory from the first to the second half of a run.
const MEMORY_GROWTH_MAX: f64 = 0.05;

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Directory of the checkpoint. The default has random weights in the shape of MiniLM (6 layers of 384).
    #[arg(long)]
    model: Option<PathBuf>,
    /// The server's objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
    /// Duration of each load in seconds.
    #[arg(long, default_value = "30")]
    seconds: u64,
    /// File with one text a line. The default is some everyday English.
    #[arg(long)]
    texts: Option<PathBuf>,
    /// Core of the server. Run this program on another one (`taskset -c`), so that they do not compete.
    #[arg(long)]
    server_core: Option<String>,
    /// Additional flags of the server, as one word: "--dtype int8".
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server: String,
}

struct Row {
    factor: f64,
    measured: Measured,
    /// Means over the first and the second half of the run, and the maximum, in bytes.
    memory: [f64; 3],
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(flags: &Flags) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let model = flags.model.clone().unwrap_or_else(|| {
        let mut spec = catalog::spec("cased").unwrap();
        spec.shape = Shape {
            layers: 6,
            hidden: 384,
            heads: 12,
            intermediate: 1536,
            positions: 512,
        };
        write(&spec, directory.path()).unwrap();
        directory.path().to_owned()
    });
    let mut arguments = vec!["--port", "0", "--slo", &flags.slo];
    arguments.extend(["--model", model.to_str().unwrap()]);
    arguments.extend(flags.server.split_whitespace());
    let server = match &flags.server_core {
        Some(core) => Server::start_under(&["taskset", "-c", core], &arguments),
        None => Server::start(&arguments, &[]),
    };
    runtime().block_on(server.ready());
    let objective = humantime::parse_duration(&flags.slo).unwrap().as_secs_f64() * 1e3;
    let texts = read_texts(flags.texts.as_deref().map(Path::new)).unwrap();
    let target: Target = format!("http://{}/predict?query={{query}}", server.address)
        .parse()
        .unwrap();
    let capacity = capacity(&target, &texts);
    println!(
        "capacity: {capacity:.0} requests a second; objective {} ({})",
        flags.slo,
        arguments.join(" ")
    );
    println!(
        "| load | offered/s | goodput/s | refused/s | other | p50 ms | p99 ms | max ms | memory MB: first half, second half, most |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let rows: Vec<Row> = FACTORS
        .iter()
        .map(|factor| measure(&server, &target, &texts, *factor, capacity, flags.seconds))
        .collect();
    judge(&rows, objective)
}

fn runner(texts: &[String], seconds: u64) -> Runner {
    Runner {
        options: Options {
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(seconds),
            timeout: Duration::from_secs(10),
            connections: 512,
            streams: 1,
            workers: 1,
            seed: 1,
        },
        texts: texts.to_vec(),
    }
}

fn load(rate: f64) -> Load {
    let Loads(loads) = format!("poisson:{rate:.3}").parse().unwrap();
    loads.into_iter().next().unwrap()
}

fn ask(runner: &Runner, target: &Target, rate: f64) -> Measured {
    runner
        .run(
            target,
            &load(rate),
            &Expected::anything(),
            &ProgressBar::hidden(),
        )
        .unwrap()
}

/// The rate that the server answers once it no longer keeps up with a doubling load.
fn capacity(target: &Target, texts: &[String]) -> f64 {
    let runner = runner(texts, 5);
    let mut rate = 20.0;
    loop {
        let measured = ask(&runner, target, rate);
        if measured.answered_rate() < 0.7 * measured.offered_rate() {
            return measured.answered_rate();
        }
        rate *= 2.0;
    }
}

fn measure(
    server: &Server,
    target: &Target,
    texts: &[String],
    factor: f64,
    capacity: f64,
    seconds: u64,
) -> Row {
    let done = Arc::new(AtomicBool::new(false));
    let (process, watched) = (server.child.id(), Arc::clone(&done));
    let watcher = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !watched.load(Ordering::Relaxed) {
            seen.push(resident(process));
            std::thread::sleep(Duration::from_millis(200));
        }
        seen
    });
    let measured = ask(&runner(texts, seconds), target, factor * capacity);
    done.store(true, Ordering::Relaxed);
    let seen = watcher.join().unwrap();
    let (first, second) = seen.split_at(seen.len() / 2);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let memory = [
        mean(first),
        mean(second),
        seen.iter().copied().fold(0.0, f64::max),
    ];
    let row = Row {
        factor,
        measured,
        memory,
    };
    print(&row);
    row
}

fn print(row: &Row) {
    let m = &row.measured;
    let seconds = m.duration.as_secs_f64();
    let other = m.offered - m.answered - m.refused;
    let [first, second, most] = row.memory.map(|bytes| bytes / 1e6);
    println!(
        "| {}× | {:.1} | {:.1} | {:.1} | {other} | {:.1} | {:.1} | {:.1} | {first:.1}, {second:.1}, {most:.1} |",
        row.factor,
        m.offered_rate(),
        m.answered_rate(),
        m.refused as f64 / seconds,
        m.percentile(50.0).unwrap_or(f64::NAN),
        m.percentile(99.0).unwrap_or(f64::NAN),
        m.max().unwrap_or(f64::NAN),
    );
}

fn judge(rows: &[Row], objective: f64) -> bool {
    let goodput = |row: &Row| row.measured.answered_rate();
    let best = rows.iter().map(goodput).fold(0.0, f64::max);
    let last = goodput(&rows[rows.len() - 1]);
    let share = last / best;
    let mut held = verdict(
        &format!(
            "goodput at {}× is {share:.3} of the best (at least {GOODPUT_MIN})",
            FACTORS[4]
        ),
        share >= GOODPUT_MIN,
    );
    for row in rows {
        let p99 = row.measured.percentile(99.0).unwrap_or(f64::INFINITY);
        let what = format!(
            "p99 of the admitted at {}×: {p99:.1} ms of {objective} ms",
            row.factor
        );
        held &= verdict(&what, p99 <= objective);
        let growth = row.memory[1] / row.memory[0] - 1.0;
        let what = format!(
            "memory at {}×: second half {:+.1} % of the first",
            row.factor,
            100.0 * growth
        );
        held &= verdict(&what, growth <= MEMORY_GROWTH_MAX);
        let m = &row.measured;
        let other = m.offered - m.answered - m.refused;
        let what = format!(
            "every request at {}× was answered or refused: {:?}",
            row.factor,
            m.failures()
        );
        held &= verdict(&what, other == 0);
    }
    held
}
