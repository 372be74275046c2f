//! The topics of the benches, and the records in them.

use std::time::{Duration, Instant};

use intentd_broker::{Broker, Compression, Gate, Login, Mechanism, Record, Settings};

pub(crate) const TOPIC: &str = "ai-info";
pub(crate) const RESULTS: &str = "intents";
pub(crate) const GROUP: &str = "ai-info-consumer";
pub(crate) const PASSWORD: &str = "secret";

/// Partitions of the results topic. A broker keeps 5 MiB of each.
const RESULT_PARTITIONS: i32 = 40;

/// A broker behind SASL_SSL whose topic has `partitions` partitions.
pub(crate) fn broker(partitions: i32) -> Broker {
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

/// Requests in everyday English, none of them empty: a record without a value is a tombstone, not a text.
pub(crate) fn texts() -> Vec<String> {
    let mut texts = intentd::bench::read_texts(None).expect("the texts are in the program");
    texts.retain(|text| !text.is_empty());
    texts
}

/// Writes records whose keys are their numbers.
pub(crate) fn produce(broker: &Broker, numbers: std::ops::Range<u64>) {
    let texts = texts();
    let record = |number: u64| {
        let text = texts[usize::try_from(number).unwrap_or(0) % texts.len()].as_str();
        Record::new(text).key(number.to_string())
    };
    broker
        .produce(TOPIC, numbers.map(record))
        .expect("the broker accepts them");
}

/// The number of records that the group has committed, over all partitions.
pub(crate) fn committed(broker: &Broker) -> u64 {
    let committed = broker.committed(GROUP, TOPIC).expect("the broker answers");
    committed
        .into_iter()
        .flatten()
        .map(|next| u64::try_from(next).unwrap_or(0))
        .sum()
}

/// Waits at most `timeout` until `records` records are committed.
pub(crate) fn wait_for(broker: &Broker, records: u64, timeout: Duration) {
    let start = Instant::now();
    while committed(broker) < records {
        assert!(
            start.elapsed() < timeout,
            "only {} of {records} are committed",
            committed(broker)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
