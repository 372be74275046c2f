//! The resilience of the server: overload, termination under load, hours of mixed load.
//!
//! ```text
//! cargo bench --bench resilience -- overload     goodput and latency from half to ten times the capacity
//! cargo bench --bench resilience -- kill         SIGTERM under full load, fifty times
//! cargo bench --bench resilience -- soak         twenty minutes of mixed load, reloads, disconnects
//! cargo bench --bench resilience -- cost         the cost of a long text compared with a short one
//! cargo bench --bench resilience -- texts        megabytes of text from many clients, and other clients' latency
//! ```
//!
//! Starts the program on free ports of the loopback address and sends to nothing else. The exit code is 1
//! when an expectation did not hold.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod client;
mod cost;
mod kill;
mod overload;
mod soak;
mod subject;
mod texts;

use std::process::ExitCode;

use clap::Parser;

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
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Open-loop load from half to ten times the capacity.
    Overload(overload::Flags),
    /// Repeated SIGTERM under full load.
    Kill(kill::Flags),
    /// Mixed load for a long time.
    Soak(soak::Flags),
    /// The cost of a long text compared with a short one.
    Cost(cost::Flags),
    /// Texts that are made to be expensive.
    Texts(texts::Flags),
}

fn main() -> ExitCode {
    let held = match Flags::parse().command {
        Command::Overload(flags) => overload::run(&flags),
        Command::Kill(flags) => kill::run(&flags),
        Command::Soak(flags) => soak::run(&flags),
        Command::Cost(flags) => cost::run(&flags),
        Command::Texts(flags) => texts::run(&flags),
    };
    if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints and returns whether an expectation held.
fn verdict(what: &str, held: bool) -> bool {
    println!("{} {what}", if held { "held:    " } else { "NOT HELD:" });
    held
}

/// The resident memory of a process, in bytes (proc(5), status).
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024.0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
