//! The broker, topics and waits that the tests of Kafka share.

use std::time::Duration;

use intentd_broker::{Broker, Record, Settings, Stored};

use crate::support::server::TestServer;

pub(super) const TOPIC: &str = "ai-info";
pub(super) const RESULTS: &str = "intents";
pub(super) const LETTERS: &str = "dead-letters";
pub(super) const GROUP: &str = "ai-info-consumer";

/// A broker with three partitions of the topic and one of each other topic.
pub(super) fn broker() -> Broker {
    let topics = [(TOPIC, 3), (RESULTS, 1), (LETTERS, 1)];
    let topics = topics.map(|(name, partitions)| (name.to_owned(), partitions));
    let settings = Settings {
        topics: topics.into(),
        ..Settings::default()
    };
    Broker::start(&settings).expect("the broker starts")
}

/// Flags of a member of the group, by the protocol that rebalances quickly.
pub(super) fn flags(bootstrap: &str) -> Vec<String> {
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

/// Writes a record for each number, with that as its key.
pub(super) fn produce(broker: &Broker, numbers: std::ops::Range<u32>) {
    let record = |number: u32| Record::new("play some jazz").key(number.to_string());
    broker.produce(TOPIC, numbers.map(record)).unwrap();
}

/// All records of a topic, once it has `count` of them.
pub(super) async fn read(broker: &Broker, topic: &str, count: usize) -> Vec<Stored> {
    for _ in 0..600 {
        let ends = broker.high_watermarks(topic).unwrap();
        if ends.iter().sum::<i64>() >= i64::try_from(count).unwrap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.consume_all(topic, Duration::from_secs(30)).unwrap()
}

/// Waits until the group has committed all records.
pub(super) async fn all_is_committed(broker: &Broker, group: &str) {
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

pub(super) async fn server(flags: &[String]) -> TestServer {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    TestServer::start(&flags).await
}

/// Waits until the value of a series is `expected`, and returns it.
pub(super) async fn metric_becomes(
    server: &TestServer,
    series: &str,
    expected: impl Fn(f64) -> bool,
) -> f64 {
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
