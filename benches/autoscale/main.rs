//! Whether the hints are true: real load on the real program, compared with the hints it publishes.
//!
//! ```text
//! cargo bench --bench autoscale -- truth       whether the published capacity keeps the objective, and whether more would
//! cargo bench --bench autoscale -- overload    demand at five times the capacity, and after the last request
//! cargo bench --bench autoscale -- fleet       whether the demands of three replicas behind a round robin add up
//! cargo bench --bench autoscale -- steps       how soon a step of the load shows
//! cargo bench --bench autoscale -- steady      whether the published rate is steady, right under bursts, and adds up
//! cargo bench --bench autoscale -- sums        what the scaler says while a replica is broken
//! cargo bench --bench autoscale -- misses      whether a missed objective raises the demand, and by how much
//! cargo bench --bench autoscale -- starts      whether servers that start know their capacity
//! cargo bench --bench autoscale -- signals     other signals at the same loads
//! cargo bench --bench autoscale -- cost        the cost of hints, load reports and scrapes, in pairs
//! ```
//!
//! Servers run on `--server-core`, core 0 by default. Run this program on another core (`taskset -c 1`), so
//! that they do not compete. The exit code is 1 when an expectation did not hold.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod cost;
mod fleet;
mod misses;
mod overload;
mod signals;
mod starts;
mod steady;
mod steps;
mod sums;
mod traffic;
mod truth;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Parser;
use indicatif::ProgressBar;
use intentd::bench::{Expected, Load, Measured, Options, Runner, Target};
use serde_json::Value;

use crate::support::checkpoint::{Shape, catalog, write};
use crate::support::http::get;
use crate::support::process::Server;
use crate::traffic::Traffic;

#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod support;

#[derive(Debug, Parser)]
struct Flags {
    #[command(subcommand)]
    command: Command,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(flatten)]
    common: Common,
}

/// The flags of all commands.
#[derive(Debug, clap::Args)]
struct Common {
    /// The model: "embedded", "base" for random weights in the shape of BERT-base, or a directory.
    #[arg(long, default_value = "embedded", global = true)]
    model: String,
    /// Posts texts of this many bytes of Chinese as JSON, instead of short questions.
    #[arg(long, global = true)]
    chinese: Option<usize>,
    /// What is asked.
    #[arg(
        long,
        default_value = "questions",
        global = true,
        conflicts_with = "chinese"
    )]
    traffic: Traffic,
    /// Duration of each load in seconds.
    #[arg(long, default_value = "60", global = true)]
    seconds: u64,
    /// Cores that a server runs on, in the format of taskset.
    #[arg(long, default_value = "0", global = true)]
    server_core: String,
    /// Additional flags of the server, as one word: "--dtype int8".
    #[arg(long, default_value = "", allow_hyphen_values = true, global = true)]
    server: String,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The published capacity against the measured one.
    Truth(truth::Flags),
    /// Demand under overload and without load.
    Overload(overload::Flags),
    /// Demands of replicas and their sum.
    Fleet(fleet::Flags),
    /// Steps of the load.
    Steps(steps::Flags),
    /// Steady loads, bursts, and sums of replicas.
    Steady(steady::Flags),
    /// A missed objective.
    Misses(misses::Flags),
    /// The scaler's sums while a replica is broken.
    Sums(sums::Flags),
    /// Capacities of servers that start.
    Starts(starts::Flags),
    /// Other signals compared with the demand.
    Signals(signals::Flags),
    /// Throughput with and without hints.
    Cost(cost::Flags),
}

fn main() -> ExitCode {
    let Flags {
        command, common, ..
    } = Flags::parse();
    let model = Model::new(&common.model);
    TRAFFIC.set(common.traffic).unwrap();
    TEXTS.set(traffic::texts(&common)).unwrap();
    let held = match command {
        Command::Truth(flags) => truth::run(&common, &model, &flags),
        Command::Overload(flags) => overload::run(&common, &model, &flags),
        Command::Fleet(flags) => fleet::run(&common, &model, &flags),
        Command::Steps(flags) => steps::run(&common, &model, &flags),
        Command::Steady(flags) => steady::run(&common, &model, &flags),
        Command::Sums(flags) => sums::run(&common, &model, &flags),
        Command::Misses(flags) => misses::run(&common, &model, &flags),
        Command::Starts(flags) => starts::run(&common, &model, &flags),
        Command::Signals(flags) => signals::run(&common, &model, &flags),
        Command::Cost(flags) => cost::run(&common, &model, &flags),
    };
    if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Load before a measurement begins, which does not count.
const WARM_UP: Duration = Duration::from_secs(2);

/// The texts of all requests, and what kind of traffic they are.
static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
static TRAFFIC: OnceLock<Traffic> = OnceLock::new();

/// Prints and returns whether an expectation held.
fn verdict(what: &str, held: bool) -> bool {
    println!("{} {what}", if held { "held:    " } else { "NOT HELD:" });
    held
}

/// A checkpoint on disk, or the embedded one.
struct Model {
    directory: Option<PathBuf>,
    /// Removes a generated checkpoint when dropped.
    _made: Option<tempfile::TempDir>,
}

impl Model {
    fn new(name: &str) -> Self {
        match name {
            "embedded" => Self {
                directory: None,
                _made: None,
            },
            "base" => {
                let made = tempfile::tempdir().unwrap();
                let mut spec = catalog::spec("cased").unwrap();
                spec.shape = Shape {
                    layers: 12,
                    hidden: 768,
                    heads: 12,
                    intermediate: 3072,
                    positions: 512,
                };
                write(&spec, made.path()).unwrap();
                Self {
                    directory: Some(made.path().to_owned()),
                    _made: Some(made),
                }
            }
            directory => Self {
                directory: Some(directory.into()),
                _made: None,
            },
        }
    }
}

/// A running server with its main and its admin address.
struct Replica {
    /// Ends the process when dropped.
    server: Server,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Replica {
    /// Starts the server with the common flags and `more`, and waits until it is ready.
    fn start(common: &Common, model: &Model, more: &[&str]) -> Self {
        Self::start_in(common, model, more, None)
    }

    /// The same in the cgroup with this list of processes.
    fn start_in(common: &Common, model: &Model, more: &[&str], group: Option<&Path>) -> Self {
        let mut arguments = vec!["--port", "0"];
        arguments.extend(more);
        if let Some(directory) = &model.directory {
            arguments.extend(["--model", directory.to_str().unwrap()]);
        }
        arguments.extend(common.server.split_whitespace());
        let taskset = ["taskset", "-c", &common.server_core];
        let mut server = match group.map(Path::to_str) {
            None => Server::start_under(&taskset, &arguments),
            Some(procs) => {
                // A group may not be entered by another process's id in all kernels, but by one's own.
                let enter = "echo $$ > \"$0\" && exec \"$@\"";
                let shell = ["sh", "-c", enter, procs.unwrap()];
                Server::start_under(&[&shell[..], &taskset].concat(), &arguments)
            }
        };
        runtime().block_on(server.ready());
        let replica = Self {
            address: server.address,
            admin: server.admin(),
            server,
        };
        // The first hints come within half a second.
        while replica.hints().number("capacity_rps") == 0.0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        replica
    }

    fn target(&self) -> Target {
        target(self.address)
    }

    /// The server's process id.
    fn process(&self) -> u32 {
        self.server.child.id()
    }

    fn hints(&self) -> Hints {
        let answer = runtime().block_on(get(self.admin, "/autoscaling", &[]));
        Hints(answer.json())
    }
}

/// The hints of a server.
struct Hints(Value);

impl Hints {
    fn number(&self, name: &str) -> f64 {
        let number = name
            .split('.')
            .try_fold(&self.0, |value, key| value.get(key));
        number.unwrap().as_f64().unwrap()
    }
}

fn target(address: SocketAddr) -> Target {
    format!("http://{address}/predict?query={{query}}")
        .parse::<Target>()
        .map(|target| match traffic::body() {
            Some(body) => Target {
                url: format!("http://{address}/predict"),
                body: Some(body.to_owned()),
                ..target
            },
            None => target,
        })
        .unwrap()
}

/// Connections for `rate` requests per second: so many that requests wait at the server, where it can see them, and not
/// for a connection.
fn connections(rate: f64) -> usize {
    (rate / 2.0).clamp(256.0, 4096.0) as usize
}

fn runner(seconds: u64, seed: u64, connections: usize) -> Runner {
    Runner {
        options: Options {
            warm_up: WARM_UP,
            duration: Duration::from_secs(seconds),
            timeout: Duration::from_secs(10),
            connections,
            streams: 1,
            workers: 1,
            seed,
        },
        texts: TEXTS.get().unwrap().clone(),
    }
}

/// Sends `rate` arrivals a second for `seconds` and returns the results.
fn ask(target: &Target, rate: f64, (seconds, seed): (u64, u64)) -> Measured {
    send(target, &traffic::load(rate, seconds, seed), (seconds, seed))
}

/// Sends a load for `seconds` and returns the results.
fn send(target: &Target, load: &Load, (seconds, seed): (u64, u64)) -> Measured {
    let duration = WARM_UP + Duration::from_secs(seconds);
    let runner = runner(seconds, seed, connections(load.rate(duration)));
    let bar = ProgressBar::hidden();
    runner
        .run(target, load, &Expected::anything(), &bar)
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
