//! The whole path on one machine: messages to Kafka, a relay in the place of Knative's KafkaSource, replicas
//! that come and go with their demand, and a picture of what happened.
//!
//! `cargo run --release --features kafka-broker --example article` plays the article's load: 50 messages at
//! once each second for 100 seconds. The broker is librdkafka's own, for tests; the gateway and the loop that
//! starts and stops replicas stand in for Knative or KEDA and are no more than the demonstration needs.

#[path = "../../tests/it/support/checkpoint/mod.rs"]
mod checkpoint;
mod fleet;
mod gateway;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use intentd::bench::{self, Load, Loads, plot};
use intentd::kafka::{self, Connection, Production, Security};
use intentd_broker::{Broker, Settings};

use self::fleet::Fleet;
use self::gateway::Gateway;
use self::story::Story;

const TOPIC: &str = "ai-info";
const PARTITIONS: i32 = 3;

/// Time between two looks at the replicas.
const LOOK: Duration = Duration::from_millis(500);

/// Time after the last message in which everything has to come to rest.
const REST: Duration = Duration::from_secs(240);

/// What is to be played.
#[derive(Debug, Parser)]
struct Arguments {
    /// The model: embedded, a directory, or random weights in the shape of BERT: base, deep (base with 24
    /// layers) or large.
    #[arg(long, default_value = "deep")]
    model: String,
    /// When messages are written, as for `intentd bench kafka`.
    #[arg(long, default_value = "article")]
    load: Loads,
    /// For how long.
    #[arg(long, default_value = "100s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The objective of a replica.
    #[arg(long, default_value = "1s")]
    slo: String,
    /// Percentage of its capacity that a replica is to use: little, since 50 at once need more than 50 in a
    /// second.
    #[arg(long, default_value = "30")]
    utilization: String,
    /// Replicas at most.
    #[arg(long, default_value = "3")]
    replicas: usize,
    /// Bootstrap brokers to use instead of one in this process; --topic has to exist and be empty.
    #[arg(long, value_name = "HOST:PORT")]
    kafka_brokers: Option<String>,
    /// The topic on these brokers.
    #[arg(long, default_value = TOPIC)]
    topic: String,
    /// File for the picture: .svg or .png.
    #[arg(long, default_value = "article.svg")]
    picture: PathBuf,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // Replicas and the relay are this program once more, with the arguments of intentd.
    if std::env::args()
        .nth(1)
        .is_some_and(|command| ["serve", "relay"].contains(&&*command))
    {
        return intentd::cli::main();
    }
    match play(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("article: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays it; whether every message was classified exactly once.
fn play(arguments: &Arguments) -> Result<bool, Error> {
    plot::check(&arguments.picture)?;
    let directory = tempfile::tempdir()?;
    let model = model(&arguments.model, directory.path())?;
    let own = match &arguments.kafka_brokers {
        Some(_) => None,
        None => Some(Broker::start(&Settings::topic(
            &arguments.topic,
            PARTITIONS,
        ))?),
    };
    let brokers = own.as_ref().map(Broker::bootstrap);
    let brokers = brokers.or_else(|| arguments.kafka_brokers.clone());
    let brokers = brokers.unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let gateway = runtime.block_on(Gateway::start())?;
    let settings = fleet::Replicas {
        model,
        slo: arguments.slo.clone(),
        utilization: arguments.utilization.clone(),
        max: arguments.replicas,
    };
    let mut fleet = Fleet::new(&gateway, settings);
    let mut relay = fleet::relay(&brokers, &arguments.topic, &gateway.sink())?;
    let [load] = &arguments.load.0[..] else {
        return Err("--load: expected one load".into());
    };
    let production = production(&brokers, load.clone(), arguments)?;
    let total = load
        .times(Duration::ZERO, arguments.duration, production.seed)
        .count();
    println!(
        "{total} messages in {:?} to {} at {brokers}",
        arguments.duration, arguments.topic
    );
    let start = Instant::now();
    let mut story = Story::new(start, Arc::clone(&gateway), &production);
    let writing = std::thread::spawn(move || kafka::produce(&production));
    while start.elapsed() < arguments.duration + REST {
        std::thread::sleep(LOOK);
        let seen = runtime.block_on(fleet.look());
        fleet.follow(seen.demand, gateway.waiting())?;
        story.tell(&seen);
        let is_written = start.elapsed() > arguments.duration;
        if is_written && fleet.is_empty() && gateway.waiting() == 0 {
            break;
        }
    }
    fleet.end();
    relay.end();
    let produced = writing.join().map_err(|_| "writing panicked")??;
    story.end(&produced);
    plot::save(&arguments.picture, &story.draw())?;
    println!("{}", story.table());
    println!("the picture is {}", arguments.picture.display());
    Ok(story.verdict(produced.acknowledged))
}

fn production(brokers: &str, load: Load, arguments: &Arguments) -> Result<Production, Error> {
    Ok(Production {
        connection: Connection {
            brokers: brokers.to_owned(),
            security: Security::Plaintext,
            credentials: None,
            ca: None,
            certificate: None,
            properties: Vec::new(),
        },
        topic: arguments.topic.clone(),
        load,
        duration: arguments.duration,
        texts: bench::read_texts(None)?,
        seed: 1,
        timeout: Duration::from_secs(30),
    })
}

/// The directory of the model, `None` for the embedded one.
fn model(name: &str, directory: &Path) -> Result<Option<PathBuf>, Error> {
    let mut spec = match name {
        "embedded" => return Ok(None),
        "base" | "deep" | "large" => {
            checkpoint::catalog::spec("base").ok_or("there is such a shape")?
        }
        other => return Ok(Some(other.into())),
    };
    match name {
        "deep" => spec.shape.layers = 24,
        "large" => {
            spec.shape = checkpoint::Shape {
                layers: 24,
                hidden: 1024,
                heads: 16,
                intermediate: 4096,
                positions: 512,
            };
        }
        _ => {}
    }
    println!(
        "writing random weights: {} layers of {}",
        spec.shape.layers, spec.shape.hidden
    );
    checkpoint::write(&spec, directory)?;
    Ok(Some(directory.to_owned()))
}
