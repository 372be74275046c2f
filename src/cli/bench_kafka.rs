//! `intentd bench kafka`: writes texts to a topic, like the client of the article.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::duration;
use super::failure::Failure;
use crate::bench::Loads;
use crate::config::KafkaArgs;

/// The flags of `intentd bench kafka`.
#[derive(Debug, Args)]
pub(super) struct BenchKafkaArgs {
    /// When records are written: constant:RATE, poisson:RATE, bursts:SIZE/SECONDS, ramp:FROM..TO,
    /// trace:FILE or article (50 at once each second).
    #[arg(
        long,
        env = "INTENTD_BENCH_LOAD",
        value_name = "LOAD",
        default_value = "article"
    )]
    load: Loads,
    /// Duration of the load.
    #[arg(long, env = "INTENTD_BENCH_DURATION", value_name = "TIME", default_value = "100s", value_parser = duration::parse)]
    duration: Duration,
    /// File with texts to write: its lines, or the "text" of each line of a .jsonl file [default: short
    /// everyday requests in English].
    #[arg(long, env = "INTENTD_BENCH_TEXTS", value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Time for the last records to be acknowledged.
    #[arg(long, env = "INTENTD_BENCH_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
    /// Seed of random times: records are written at the same times with the same seed.
    #[arg(
        long,
        env = "INTENTD_BENCH_SEED",
        value_name = "N",
        default_value = "1"
    )]
    seed: u64,
    /// The connection and the topic.
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[cfg(not(feature = "kafka"))]
pub(super) fn run(args: &BenchKafkaArgs) -> Result<(), Failure> {
    let BenchKafkaArgs {
        load: _,
        duration: _,
        texts: _,
        timeout: _,
        seed: _,
        kafka: _,
    } = args;
    Err(Failure::usage(format!(
        "bench kafka: {}",
        intentd_base::NO_KAFKA
    )))
}

/// Writes records and prints the report.
#[cfg(feature = "kafka")]
pub(super) fn run(args: &BenchKafkaArgs) -> Result<(), Failure> {
    use crate::bench;
    use crate::kafka::{Production, produce};

    let topic = match (&args.kafka.topics()[..], &args.load.0[..]) {
        ([topic], [_]) => topic.clone(),
        (_, [_]) => return Err(Failure::usage("--kafka-topic: expected one topic")),
        _ => return Err(Failure::usage("--load: expected one load")),
    };
    let connection = args.kafka.clone().connection().map_err(Failure::usage)?;
    let none =
        || Failure::usage("--kafka-brokers: expected the address of a broker, such as kafka:9092");
    let texts = bench::read_texts(args.texts.as_deref());
    let production = Production {
        connection: connection.ok_or_else(none)?,
        topic,
        load: args.load.0[0].clone(),
        duration: args.duration,
        texts: texts.map_err(|error| Failure::usage(format!("--texts: {error}")))?,
        seed: args.seed,
        timeout: args.timeout,
    };
    let produced = produce(&production)?;
    let ms = |percentile| produced.latencies.value_at_quantile(percentile) as f64 / 1e3;
    let seconds = produced.elapsed.as_secs_f64();
    println!(
        "{} records written in {seconds:.1} s ({:.1} a second), {} acknowledged",
        produced.sent,
        produced.sent as f64 / seconds,
        produced.acknowledged
    );
    if produced.acknowledged > 0 {
        println!(
            "acknowledged after, in ms: {:.1} (p50), {:.1} (p99), {:.1} (longest); at most {:.1} ms behind",
            ms(0.5),
            ms(0.99),
            ms(1.0),
            produced.behind.as_secs_f64() * 1e3
        );
    }
    for (why, count) in &produced.failed {
        println!("{count} failed: {why}");
    }
    if produced.acknowledged == produced.sent {
        Ok(())
    } else {
        Err(Failure::other("not all records were acknowledged"))
    }
}
