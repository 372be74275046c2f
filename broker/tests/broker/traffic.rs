//! Records, consumer groups, and injected failures.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use intentd_broker::{Api, Broker, BrokerError, Compression, Record, Settings};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use crate::{PATIENCE, TOPIC, member, numbered, read, sum};

fn start() -> Broker {
    Broker::start(&Settings::topic(TOPIC, 3)).unwrap()
}

#[test]
fn records_come_back_unchanged() {
    let broker = start();
    let sent = [
        Record::new("play some jazz").key("a").partition(2),
        Record::new("")
            .header("ce_id", "1")
            .header("ce_id", "2")
            .partition(0),
        Record {
            key: Some(Vec::new()),
            headers: vec![
                ("null".to_owned(), None),
                ("empty".to_owned(), Some(Vec::new())),
            ],
            partition: Some(0),
            ..Record::default()
        },
        Record::new(b"\xff\0".as_slice())
            .header("bytes", b"\xfe".as_slice())
            .partition(2),
    ];
    assert_eq!(broker.produce(TOPIC, sent.clone()).unwrap(), 4);
    assert_eq!(broker.high_watermarks(TOPIC).unwrap(), [2, 0, 2]);
    assert_eq!(broker.low_watermarks(TOPIC).unwrap(), [0, 0, 0]);

    let read = broker.consume_all(TOPIC, PATIENCE).unwrap();
    let order = [
        (&sent[1], 0, 0),
        (&sent[2], 0, 1),
        (&sent[0], 2, 0),
        (&sent[3], 2, 1),
    ];
    assert_eq!(read.len(), order.len());
    for (read, (sent, partition, offset)) in read.iter().zip(order) {
        assert_eq!((read.partition, read.offset), (partition, offset));
        assert_eq!((&read.key, &read.value), (&sent.key, &sent.value));
        assert_eq!(read.headers, sent.headers);
    }
    assert_eq!(read[0].header("ce_id"), Some(b"1".as_slice()));
    assert_eq!(read[1].header("null"), None);
    broker.create_topic("replies", 1).unwrap();
    assert_eq!(broker.consume_all("replies", PATIENCE).unwrap(), []);
    broker.produce("unheard-of", numbered(1)).unwrap();
    assert_eq!(broker.high_watermarks("unheard-of").unwrap().len(), 4);
}

#[test]
fn a_hundred_thousand_records_take_seconds() {
    const COUNT: usize = 100_000;
    for compression in [Compression::Zstd, Compression::Lz4] {
        let settings = Settings {
            compression,
            ..Settings::topic(TOPIC, 3)
        };
        let broker = Broker::start(&settings).unwrap();
        let started = Instant::now();
        let records = (0..COUNT).map(|number| {
            let record = Record::new(format!("{{\"text\":\"play song number {number}\"}}"));
            let record = record
                .key(number.to_string())
                .header("ce_specversion", "1.0");
            record.header("ce_id", number.to_string())
        });
        broker.produce(TOPIC, records).unwrap();
        let produced = started.elapsed();
        let read = broker.consume_all(TOPIC, PATIENCE).unwrap();
        println!(
            "{compression:?}: produced in {produced:?}, read {:?} after the start",
            started.elapsed()
        );
        assert_eq!(
            broker.low_watermarks(TOPIC).unwrap(),
            [0, 0, 0],
            "{compression:?}"
        );
        let ids: BTreeSet<_> = read.iter().map(|record| record.header("ce_id")).collect();
        assert_eq!((read.len(), ids.len()), (COUNT, COUNT));
    }
}

#[test]
fn dropped_records_show_in_the_low_watermark() {
    let settings = Settings {
        compression: Compression::None,
        ..Settings::topic(TOPIC, 1)
    };
    let broker = Broker::start(&settings).unwrap();
    let records = (0..20_000).map(|number| Record::new(format!("{number:0500}")));
    broker.produce(TOPIC, records).unwrap();
    let (low, high) = (
        broker.low_watermarks(TOPIC).unwrap(),
        broker.high_watermarks(TOPIC).unwrap(),
    );
    assert_eq!(high, [20_000]);
    assert!(low[0] > 0, "{low:?}");
    let read = broker.consume_all(TOPIC, PATIENCE).unwrap();
    assert_eq!(read[0].offset, low[0]);
    assert_eq!(i64::try_from(read.len()).unwrap(), high[0] - low[0]);
}

#[test]
fn groups_resume_at_their_committed_offsets() {
    let broker = start();
    broker.produce(TOPIC, numbered(500)).unwrap();
    for (group, classic) in [("classic", true), ("kip-848", false)] {
        assert_eq!(broker.committed(group, TOPIC).unwrap(), [None; 3]);
        let reader = member(broker.client_config(), group, classic);
        let first = read(&reader, 500);
        println!("{group}: first record after {first:?}");
        // The mock's own delay would be 3 s.
        assert!(first < Duration::from_millis(2500), "{first:?}");
        assert_eq!(sum(&broker, group), 500);
        drop(reader);
    }
    broker.produce(TOPIC, numbered(10)).unwrap();
    let reader = member(broker.client_config(), "kip-848", false);
    read(&reader, 10);
    let ends = broker.high_watermarks(TOPIC).unwrap();
    let committed = broker.committed("kip-848", TOPIC).unwrap();
    assert_eq!(committed, ends.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn two_members_share_the_partitions_and_one_gets_all() {
    let settings = Settings::topic(TOPIC, 4);
    let broker = Broker::start(&settings).unwrap();
    let (one, other) = (
        member(broker.client_config(), "g", false),
        member(broker.client_config(), "g", false),
    );
    let started = Instant::now();
    let until = |parts: &dyn Fn() -> (usize, usize), wanted| {
        while parts() != wanted {
            assert!(started.elapsed() < PATIENCE, "{:?}", parts());
        }
        println!("{wanted:?} after {:?}", started.elapsed());
    };
    let count = |member: &rdkafka::consumer::BaseConsumer| {
        drop(member.poll(Duration::from_millis(20)));
        member.assignment().unwrap().count()
    };
    until(&|| (count(&one), count(&other)), (2, 2));
    drop(other);
    until(&|| (count(&one), 0), (4, 0));
}

#[test]
fn a_broker_that_was_down_keeps_its_records() {
    let broker = start();
    broker.produce(TOPIC, numbered(5)).unwrap();
    let reader = member(broker.client_config(), "g", false);
    read(&reader, 5);
    broker.go_down().unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let produced = scope.spawn(|| broker.produce(TOPIC, numbered(5)));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!produced.is_finished());
        broker.come_up().unwrap();
        assert_eq!(produced.join().unwrap().unwrap(), 5);
    });
    println!("produced after {:?}", started.elapsed());
    read(&reader, 5);
    assert_eq!(sum(&broker, "g"), 10);
    assert_eq!(broker.consume_all(TOPIC, PATIENCE).unwrap().len(), 10);
}

#[test]
fn injected_errors_reach_clients() {
    let broker = start();
    let again = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 3];
    broker.fail_next(Api::Produce, &again).unwrap();
    assert_eq!(broker.produce(TOPIC, numbered(10)).unwrap(), 10);
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
    broker.fail_next(Api::Produce, &refused).unwrap();
    let error = broker
        .produce(TOPIC, [Record::new("x").partition(0)])
        .unwrap_err();
    let BrokerError::Unacknowledged {
        acknowledged: 0,
        sent: 1,
        first,
    } = error
    else {
        panic!("{error}");
    };
    let code = first.and_then(|error| error.rdkafka_error_code());
    assert_eq!(code, Some(RDKafkaErrorCode::TopicAuthorizationFailed));

    let elsewhere = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE; 2];
    broker.fail_next(Api::Fetch, &elsewhere).unwrap();
    assert_eq!(broker.consume_all(TOPIC, PATIENCE).unwrap().len(), 10);

    let reader = member(broker.client_config(), "g", false);
    read(&reader, 10);
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(TOPIC, 0, Offset::Offset(1))
        .unwrap();
    let too_large = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE; 2];
    broker.fail_next(Api::OffsetCommit, &too_large).unwrap();
    let error = reader.commit(&offsets, CommitMode::Sync).unwrap_err();
    let code = RDKafkaErrorCode::OffsetMetadataTooLarge;
    assert!(
        matches!(error, KafkaError::ConsumerCommit(found) if found == code),
        "{error}"
    );
    broker.fail_no_more(Api::OffsetCommit).unwrap();
    reader.commit(&offsets, CommitMode::Sync).unwrap();
    assert_eq!(broker.committed("g", TOPIC).unwrap()[0], Some(1));
}

#[test]
fn responses_take_the_round_trip_time() {
    let broker = start();
    broker.produce(TOPIC, numbered(3)).unwrap();
    let reader = member(broker.client_config(), "g", false);
    read(&reader, 3);
    broker.round_trip_time(Duration::from_millis(300)).unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(TOPIC, 0, Offset::Offset(1))
        .unwrap();
    let started = Instant::now();
    reader.commit(&offsets, CommitMode::Sync).unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "{:?}",
        started.elapsed()
    );
    broker.round_trip_time(Duration::ZERO).unwrap();
}

#[test]
fn invalid_requests_are_errors() {
    let broker = start();
    for (name, partitions) in [
        (TOPIC, 3),
        ("", 1),
        ("x", 0),
        ("x", -1),
        ("x", i32::MAX),
        ("\0", 1),
    ] {
        assert!(
            broker.create_topic(name, partitions).is_err(),
            "{name:?} {partitions}"
        );
    }
    for answer in [
        broker.high_watermarks("missing"),
        broker.low_watermarks("missing"),
    ] {
        let error = answer.unwrap_err();
        let BrokerError::Kafka(KafkaError::MetadataFetch(code)) = error else {
            panic!("{error}");
        };
        assert_eq!(code, RDKafkaErrorCode::UnknownTopicOrPartition);
    }
    assert!(broker.consume_all("missing", PATIENCE).is_err());
    assert!(broker.committed("g", "missing").is_err());
    broker.produce(TOPIC, numbered(1)).unwrap();
    let error = broker.consume_all(TOPIC, Duration::ZERO).unwrap_err();
    assert!(
        matches!(
            error,
            BrokerError::Late {
                read: 0,
                expected: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_works_inside_a_runtime() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    let broker = start();
    is_shared(&broker);
    broker.produce(TOPIC, numbered(1)).unwrap();
    assert_eq!(broker.ca_pem(), None);
    assert_eq!(broker.refused(), 0);
}
