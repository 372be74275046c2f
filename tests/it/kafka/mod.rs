//! Topics of Kafka, against librdkafka's own broker.

mod bench;
mod relay;
mod security;
mod source;

use std::time::Duration;

use intentd_broker::{Broker, Record, Settings, Stored};

use crate::support::server::TestServer;

const TOPIC: &str = "ai-info";
const RESULTS: &str = "intents";
const LETTERS: &str = "dead-letters";
const GROUP: &str = "ai-info-consumer";

/// A broker with three partitions of the topic and one of each of the others.
fn broker() -> Broker {
    let topics = [(TOPIC, 3), (RESULTS, 1), (LETTERS, 1)];
    let topics = topics.map(|(name, partitions)| (name.to_owned(), partitions));
    let settings = Settings {
        topics: topics.into(),
        ..Settings::default()
    };
    Broker::start(&settings).expect("the broker starts")
}

/// Flags of a member of the group, with its sessions as short as a test can wait for.
fn flags(bootstrap: &str) -> Vec<String> {
    let flags = [
        "--kafka-brokers",
        bootstrap,
        "--kafka-topic",
        TOPIC,
        "--kafka-group",
        GROUP,
        "--kafka-group-protocol",
        "consumer",
    ];
    flags.map(str::to_owned).into()
}

/// Writes so many records whose keys are their numbers.
fn produce(broker: &Broker, numbers: std::ops::Range<u32>) {
    let record = |number: u32| Record::new("play some jazz").key(number.to_string());
    broker.produce(TOPIC, numbers.map(record)).unwrap();
}

/// What a topic holds, once it holds so many.
async fn read(broker: &Broker, topic: &str, count: usize) -> Vec<Stored> {
    for _ in 0..600 {
        let ends = broker.high_watermarks(topic).unwrap();
        if ends.iter().sum::<i64>() >= i64::try_from(count).unwrap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.consume_all(topic, Duration::from_secs(30)).unwrap()
}

/// Waits until the group has committed everything.
async fn all_is_committed(broker: &Broker, group: &str) {
    let ends: Vec<i64> = broker.high_watermarks(TOPIC).unwrap();
    for _ in 0..600 {
        let committed = broker.committed(group, TOPIC).unwrap();
        let committed: Vec<i64> = committed
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect();
        if committed == ends {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!(
        "not all is committed: {:?} of {ends:?}",
        broker.committed(group, TOPIC)
    );
}

async fn server(flags: &[String]) -> TestServer {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    TestServer::start(&flags).await
}

/// The value of a series once it is `expected`.
async fn metric_becomes(server: &TestServer, series: &str, expected: impl Fn(f64) -> bool) -> f64 {
    let mut value = f64::NAN;
    for _ in 0..600 {
        value = server.metric(series).await;
        if expected(value) {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{series} stays {value}");
}
