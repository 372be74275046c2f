//! Tests of the broker through its clients. One program, so that librdkafka is linked once.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic like the tests themselves"
)]

mod gate;
mod program;
mod traffic;

use std::time::{Duration, Instant};

use intentd_broker::{Broker, Record};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;

const TOPIC: &str = "intents";

/// A time limit far above what anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records with their numbers as keys and values.
fn numbered(count: usize) -> impl Iterator<Item = Record> {
    (0..count).map(|number| Record::new(number.to_string()).key(number.to_string()))
}

/// A member of a group, by KIP-848 unless `classic`.
fn member(mut config: ClientConfig, group: &str, classic: bool) -> BaseConsumer {
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    if classic {
        config.set("session.timeout.ms", "1500");
        config.set("heartbeat.interval.ms", "300");
    } else {
        config.set("group.protocol", "consumer");
    }
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[TOPIC]).unwrap();
    member
}

/// Reads and commits `count` records; returns the time until the first.
fn read(member: &BaseConsumer, count: usize) -> Duration {
    let started = Instant::now();
    let mut first = None;
    let mut read = 0;
    while read < count {
        assert!(started.elapsed() < PATIENCE, "{read} of {count} records");
        if let Some(Ok(message)) = member.poll(Duration::from_millis(100)) {
            assert!(message.payload().is_some());
            first.get_or_insert_with(|| started.elapsed());
            read += 1;
        }
    }
    member.commit_consumer_state(CommitMode::Sync).unwrap();
    first.unwrap_or_default()
}

/// The sum of a group's committed offsets.
fn sum(broker: &Broker, group: &str) -> i64 {
    let committed = broker.committed(group, TOPIC).unwrap();
    committed.into_iter().map(Option::unwrap_or_default).sum()
}
