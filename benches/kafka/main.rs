//! What becomes of a topic's records when processes die, members come and go, brokers are away, and when
//! there are a million of them.
//!
//! `cargo bench --features kafka-broker --bench kafka -- kill | rebalance | outage | backlog`. Servers are
//! the program itself, as processes; brokers are librdkafka's own, in this one.

mod backlog;
mod loss;
mod server;

use clap::{Parser, Subcommand};
use intentd_broker::{Broker, Compression, Gate, Login, Mechanism, Record, Settings};

const TOPIC: &str = "ai-info";
const RESULTS: &str = "intents";
const GROUP: &str = "ai-info-consumer";
const PASSWORD: &str = "secret";

/// Partitions of the topic of results: a broker keeps 5 MiB of each.
const RESULT_PARTITIONS: i32 = 40;

#[derive(Debug, Parser)]
struct Arguments {
    /// What cargo gives to every bench.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kills the consumer again and again while it reads.
    Kill(loss::Flags),
    /// Lets consumers join and leave.
    Rebalance(loss::Flags),
    /// Takes the broker away for ten seconds.
    Outage(loss::Flags),
    /// Lets a full topic be read, and compares with texts from memory.
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

/// A broker behind SASL_SSL whose topic has so many partitions.
fn broker(partitions: i32) -> Broker {
    let login = Login {
        mechanism: Mechanism::ScramSha512,
        username: "intents".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let settings = Settings {
        topics: vec![
            (TOPIC.to_owned(), partitions),
            (RESULTS.to_owned(), RESULT_PARTITIONS),
        ],
        gate: Some(Gate::SaslSsl(login)),
        compression: Compression::Lz4,
        ..Settings::default()
    };
    Broker::start(&settings).expect("the broker starts")
}

/// Requests of everyday English. A record without a value is a tombstone, and no text.
fn texts() -> Vec<String> {
    let mut texts = intentd::bench::read_texts(None).expect("they are in the program");
    texts.retain(|text| !text.is_empty());
    texts
}

/// Writes records whose keys are their numbers.
fn produce(broker: &Broker, numbers: std::ops::Range<u64>) {
    let texts = texts();
    let record = |number: u64| {
        let text = texts[usize::try_from(number).unwrap_or(0) % texts.len()].as_str();
        Record::new(text).key(number.to_string())
    };
    broker
        .produce(TOPIC, numbers.map(record))
        .expect("the broker takes them");
}
