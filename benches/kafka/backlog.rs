//! Reads a full topic: is memory bounded, and is reading as fast as the engine?

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use intentd::config::{Config, Platform, ServeArgs};
use intentd::model::{Text, TooLong};
use intentd::serving::{Phase, Request};

use super::server::{Secrets, Server};
use super::topic::{broker, committed, produce, texts};

/// Partitions of the topic. A broker keeps 100,000 records of each.
const PARTITIONS: i32 = 20;

/// Texts from memory that are in flight: two batches, as for the source.
const IN_FLIGHT: usize = 512;

/// Time limit for reading all records.
const TIMEOUT: Duration = Duration::from_secs(500);

/// The settings of a run.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The number of records to write.
    #[arg(long, default_value = "1000000")]
    records: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value = "5")]
    seconds: u64,
}

/// Measures reading the topic, then texts from memory. The server has core 0, the broker core 1.
pub(crate) fn run(flags: &Flags) {
    let broker = broker(PARTITIONS);
    produce(&broker, 0..flags.records);
    println!("{} records in {PARTITIONS} partitions", flags.records);
    let secrets = Secrets::of(&broker);
    let server = Server::start(&secrets, false, Some(0), &[]);
    while committed(&broker) == 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (mut memory, mut rates) = (Vec::new(), Vec::new());
    let start = Instant::now();
    loop {
        let (before, since) = (committed(&broker), Instant::now());
        std::thread::sleep(Duration::from_secs(flags.seconds));
        let now = committed(&broker);
        memory.push(server.memory());
        if now >= flags.records {
            break;
        }
        rates.push((now - before) as f64 / since.elapsed().as_secs_f64());
        assert!(start.elapsed() < TIMEOUT, "only {now} are read");
    }
    assert!(server.end(), "the server ends successfully");
    let from_memory: Vec<f64> = (0..5).map(|_| measure_memory(flags)).collect();
    let (read, other) = (median(&rates), median(&from_memory));
    println!(
        "resident memory in MB, every {} s: {memory:.1?}",
        flags.seconds
    );
    println!("read a second: {rates:.0?}");
    println!("from memory a second: {from_memory:.0?}");
    println!("medians {read:.0} and {other:.0}: {:.3}", read / other);
    if read < 0.9 * other {
        println!("NOT HELD: 0.9 of what the engine does from memory");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure_memory(flags: &Flags) -> f64 {
    let this = std::env::current_exe().expect("this program has a path");
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(this)
        .args(["memory", "--seconds", &flags.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("taskset is there");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("it prints its rate")
}

#[derive(Parser)]
struct ServeFlags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Classifies texts from memory, with as many in flight as a Kafka reader has, and prints the rate.
pub(crate) fn from_memory(flags: &Flags) {
    let line = "intentd --host 127.0.0.1 --port 0 --admin-port off --threads 1";
    let args = ServeFlags::parse_from(line.split(' ')).serve;
    let config = Config::new(args, &Platform::default()).expect("the flags are right");
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    let texts = Arc::new(texts());
    let done = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let running = intentd::server::start(&config).expect("the port is free");
        let classifier = Arc::clone(&running.classifier);
        while classifier.phase() != Phase::Ready {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for first in 0..IN_FLIGHT {
            let (classifier, texts, done) = (
                Arc::clone(&classifier),
                Arc::clone(&texts),
                Arc::clone(&done),
            );
            tokio::spawn(async move {
                for index in first.. {
                    let text = texts[index % texts.len()].clone();
                    let request = Request {
                        texts: vec![Text::Single(text)],
                        too_long: TooLong::Truncate,
                    };
                    classifier
                        .classify_record(request)
                        .await
                        .expect("it answers");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The warm-up is not measured.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, since) = (done.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_secs(flags.seconds)).await;
        let rate = (done.load(Ordering::Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
        println!("{rate}");
    });
    runtime.shutdown_background();
}
