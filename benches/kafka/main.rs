//! Counts lost and repeated records when processes die, members join and leave, and brokers fail, and measures
//! how fast a million records are read.
//!
//! `cargo bench --features kafka-broker --bench kafka -- kill | rebalance | outage | backlog`. Servers are
//! processes of the program itself; brokers are librdkafka's mock, in this process.

mod backlog;
mod loss;
mod server;
mod topic;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Arguments {
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kills the consumer repeatedly while it reads.
    Kill(loss::Flags),
    /// Lets consumers join and leave.
    Rebalance(loss::Flags),
    /// Takes the broker down for ten seconds.
    Outage(loss::Flags),
    /// Reads a full topic, and compares the rate with texts from memory.
    Backlog(backlog::Flags),
    /// Classifies texts from memory: the other side of `backlog`.
    #[command(hide = true)]
    Memory(backlog::Flags),
}

fn main() {
    let Arguments { bench: _, command } = Arguments::parse();
    match command {
        Command::Kill(flags) => loss::kill(&flags),
        Command::Rebalance(flags) => loss::rebalance(&flags),
        Command::Outage(flags) => loss::outage(&flags),
        Command::Backlog(flags) => backlog::run(&flags),
        Command::Memory(flags) => backlog::from_memory(&flags),
    }
}
