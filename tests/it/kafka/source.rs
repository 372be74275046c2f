//! `intentd serve` as a member of a consumer group.

use std::collections::BTreeSet;
use std::time::Duration;

use intentd_broker::{Api, Record, Stored};
use rdkafka::types::RDKafkaRespErr as RespErr;
use serde_json::Value;

use super::fixture::{
    GROUP, LETTERS, RESULTS, TOPIC, all_is_committed, broker, flags, metric_becomes, produce, read,
    server,
};
use crate::support::http;
use crate::support::server::{TestServer, eventually};

fn text<'a>(record: &'a Stored, header: &str) -> &'a str {
    let value = record.header(header);
    let value = value.unwrap_or_else(|| panic!("no {header} in {record:?}"));
    std::str::from_utf8(value).unwrap()
}

fn with(mut flags: Vec<String>, more: &[&str]) -> Vec<String> {
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    flags
}

/// A record of each kind: seven valid events, and four records with an error.
fn one_of_each() -> Vec<Record> {
    let event = r#"{"specversion":"1.0","id":"7","source":"/shop","type":"t","data":"play"}"#;
    let typed = |value: &str, name: &str, content_type: &str| {
        Record::new(value)
            .key(name)
            .header("content-type", content_type)
    };
    let batch = format!("[{event}, {event}, 7]");
    let binary = Record::new("play")
        .key("binary")
        .header("ce_specversion", "1.0")
        .header("ce_id", "8")
        .header("ce_source", "/shop")
        .header("ce_type", "t");
    let junk = Record::new(vec![0xff, 0x00]).key("junk");
    vec![
        Record::new("play some jazz").key("plain"),
        Record::new(r#"{"query": "play some jazz"}"#).key("json"),
        typed(event, "structured", "application/cloudevents+json"),
        typed(&batch, "batch", "application/cloudevents-batch+json"),
        binary,
        Record::default().key("tombstone"),
        junk.header("trace", "1"),
        typed("play", "image", "image/png"),
        Record::new("play some jazz"),
    ]
}

fn of<'a>(records: &'a [Stored], key: &str) -> &'a Stored {
    let mut records = records.iter();
    let found = records.find(|record| record.key.as_deref() == Some(key.as_bytes()));
    found.unwrap_or_else(|| panic!("nothing of {key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_record_gets_an_answer_or_an_error() {
    let broker = broker();
    broker.produce(TOPIC, one_of_each()).unwrap();
    let more = [
        "--kafka-results-topic",
        RESULTS,
        "--kafka-dead-letter-topic",
        LETTERS,
        "--event-source",
        "/intents/test",
    ];
    let server = server(&with(flags(&broker.bootstrap()), &more)).await;

    let answers = read(&broker, RESULTS, 7).await;
    let keys: BTreeSet<_> = answers.iter().map(|answer| answer.key.clone()).collect();
    assert_eq!(
        (answers.len(), keys.len()),
        (7, 6),
        "two belong to one record"
    );
    for answer in &answers {
        assert_eq!(text(answer, "ce_type"), "dev.intentd.prediction");
        assert_eq!(text(answer, "ce_source"), "/intents/test");
        assert_eq!(text(answer, "content-type"), "application/json");
        let value: Value = serde_json::from_slice(answer.value.as_ref().unwrap()).unwrap();
        assert_eq!(value["label"], "PlayMusic", "{value}");
    }
    let cause = |key| text(of(&answers, key), "ce_causationid");
    assert_eq!((cause("structured"), cause("binary")), ("7", "8"));
    assert!(cause("plain").starts_with("partition:"));
    assert_eq!(text(of(&answers, "plain"), "ce_partitionkey"), "plain");

    let letters = read(&broker, LETTERS, 4).await;
    assert_eq!(letters.len(), 4);
    for (key, expected) in [
        ("tombstone", "Empty"),
        ("junk", "Malformed"),
        ("image", "UnsupportedMediaType"),
        ("batch", "Malformed"),
    ] {
        assert_eq!(text(of(&letters, key), "intentd-error-type"), expected);
    }
    let junk = of(&letters, "junk");
    assert_eq!(junk.value, Some(vec![0xff, 0x00]), "as it was");
    let headers = (text(junk, "trace"), text(junk, "intentd-topic"));
    assert_eq!(headers, ("1", TOPIC));

    all_is_committed(&broker, GROUP).await;
    for (outcome, count) in [("done", 5.0), ("dead_letter", 4.0)] {
        let series = format!("intentd_kafka_records_total{{outcome=\"{outcome}\"}}");
        assert_eq!(server.metric(&series).await, count);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_hands_its_partitions_over() {
    let broker = broker();
    produce(&broker, 0..500);
    let flags = with(
        flags(&broker.bootstrap()),
        &["--kafka-results-topic", RESULTS],
    );
    let first = server(&flags).await;
    metric_becomes(
        &first,
        "intentd_kafka_records_total{outcome=\"done\"}",
        |done| done >= 1.0,
    )
    .await;
    first.stop().await;
    produce(&broker, 500..600);
    let second = server(&flags).await;
    all_is_committed(&broker, GROUP).await;
    let answers = read(&broker, RESULTS, 600).await;
    let keys: BTreeSet<_> = answers.iter().map(|answer| answer.key.clone()).collect();
    assert_eq!((keys.len(), answers.len()), (600, 600), "each once");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_beyond_the_window_wait_in_the_topic_and_count_as_demand() {
    let broker = broker();
    produce(&broker, 0..3000);
    let flags = with(
        flags(&broker.bootstrap()),
        &[
            "--slo",
            "100ms",
            "--kafka-in-flight",
            "16",
            "--engine-timeout",
            "off",
        ],
    );
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let opened = ["--calibration", "false"];
    let (server, gate) = TestServer::gated(&[&flags[..], &opened].concat()).await;
    metric_becomes(&server, "intentd_kafka_paused", |paused| paused == 1.0).await;
    let lag = metric_becomes(&server, "intentd_kafka_lag_records", |lag| lag >= 3000.0).await;
    assert_eq!(lag, 3000.0, "none is finished");
    assert!(server.metric("intentd_kafka_in_flight").await <= 17.0);
    assert_eq!(
        server
            .metric("intentd_refused_total{reason=\"queue\"}")
            .await,
        0.0
    );
    gate.open();
    all_is_committed(&broker, GROUP).await;
    metric_becomes(&server, "intentd_kafka_lag_records", |lag| lag == 0.0).await;
    metric_becomes(&server, "intentd_kafka_paused", |paused| paused == 0.0).await;
    while http::get(server.admin, "/autoscaling", &[]).await.json()["backlog"] != 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        server
            .metric("intentd_requests_total{outcome=\"answered\",surface=\"kafka\"}")
            .await,
        3000.0
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_demand_before_it_is_read() {
    let broker = broker();
    let flags = with(
        flags(&broker.bootstrap()),
        &[
            "--slo",
            "100ms",
            "--kafka-in-flight",
            "1",
            "--backlog-drain",
            "1s",
        ],
    );
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // One slow record at a time, so records stay unread for a while.
    let server = TestServer::with_engine(&flags, |engine| crate::support::engine::Faulty {
        engine,
        fault: |_: &intentd::engine::RaggedBatch| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        },
    })
    .await;
    produce(&broker, 0..400);
    let demand = metric_becomes(&server, "intentd_autoscaling_demand_replicas", |demand| {
        demand > 0.5
    })
    .await;
    assert!(demand.is_finite());
    let hints = http::get(server.admin, "/autoscaling", &[]).await.json();
    assert!(hints["backlog"].as_u64().unwrap() > 0, "{hints}");
    // The backlog does not delay a request.
    let answer = http::get(server.address, "/predict?query=music", &[]).await;
    assert_eq!(answer.status, 200);
    all_is_committed(&broker, GROUP).await;
    server.stop().await;
}

/// Runs two members by either protocol; one leaves while records are written.
async fn a_member_leaves(protocol: &str, more: &[&str]) {
    let broker = broker();
    let mut flags = with(
        flags(&broker.bootstrap()),
        &["--kafka-results-topic", RESULTS],
    );
    let place = flags
        .iter()
        .position(|flag| flag == "--kafka-group-protocol")
        .unwrap();
    protocol.clone_into(&mut flags[place + 1]);
    let flags = with(flags, more);
    let first = server(&flags).await;
    let second = server(&flags).await;
    produce(&broker, 0..2000);
    let partitions = "intentd_kafka_partitions";
    metric_becomes(&second, partitions, |partitions| partitions >= 1.0).await;
    produce(&broker, 2000..3000);
    first.stop().await;
    produce(&broker, 3000..3100);
    all_is_committed(&broker, GROUP).await;
    let answers = read(&broker, RESULTS, 3100).await;
    let keys: BTreeSet<_> = answers.iter().map(|answer| answer.key.clone()).collect();
    assert_eq!(keys.len(), 3100);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_member_leaves() {
    a_member_leaves("consumer", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_member_leaves_a_classic_group() {
    // The mock's classic groups wait for the end of a session when members join or leave.
    let short = [
        "--kafka-config",
        "session.timeout.ms=1500",
        "--kafka-config",
        "heartbeat.interval.ms=300",
    ];
    a_member_leaves("classic", &short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_at_the_end_loses_no_later_record() {
    let broker = broker();
    produce(&broker, 0..100);
    let flags = with(
        flags(&broker.bootstrap()),
        &["--kafka-start", "latest", "--kafka-results-topic", RESULTS],
    );
    let first = server(&flags).await;
    all_is_committed(&broker, GROUP).await;
    first.stop().await;
    // No member is present when these are written.
    produce(&broker, 100..150);
    let second = server(&flags).await;
    all_is_committed(&broker, GROUP).await;
    let answers = read(&broker, RESULTS, 50).await;
    assert_eq!(answers.len(), 50);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_too_large_keeps_its_position() {
    let broker = broker();
    let large = Record::new(vec![0xff; 300_000]).key("large");
    broker.produce(TOPIC, [large]).unwrap();
    produce(&broker, 0..10);
    let flags = with(
        flags(&broker.bootstrap()),
        &[
            "--kafka-dead-letter-topic",
            LETTERS,
            // As a broker would limit it.
            "--kafka-config",
            "message.max.bytes=100000",
        ],
    );
    let server = server(&flags).await;
    all_is_committed(&broker, GROUP).await;
    let letters = read(&broker, LETTERS, 1).await;
    assert_eq!(letters[0].value, None);
    assert_eq!(text(&letters[0], "intentd-error-type"), "Malformed");
    assert_eq!(text(&letters[0], "intentd-topic"), TOPIC);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_brokers_pass_without_loss() {
    let broker = broker();
    let flags = with(
        flags(&broker.bootstrap()),
        &["--kafka-results-topic", RESULTS],
    );
    let server = server(&flags).await;
    eventually("the topic is read", || server.classifier.is_ready()).await;
    produce(&broker, 0..100);
    broker
        .fail_next(
            Api::OffsetCommit,
            &[RespErr::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE],
        )
        .unwrap();
    broker
        .fail_next(
            Api::Produce,
            &[RespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2],
        )
        .unwrap();
    produce(&broker, 100..200);
    all_is_committed(&broker, GROUP).await;
    let errors = "intentd_kafka_errors_total{operation=\"commit\"}";
    assert!(server.metric(errors).await >= 1.0, "the error was met");
    broker.go_down().unwrap();
    metric_becomes(&server, "intentd_kafka_connected", |connected| {
        connected == 0.0
    })
    .await;
    assert!(server.classifier.is_ready(), "requests are still answered");
    broker.come_up().unwrap();
    produce(&broker, 200..300);
    all_is_committed(&broker, GROUP).await;
    let answers = read(&broker, RESULTS, 300).await;
    let keys: BTreeSet<_> = answers.iter().map(|answer| answer.key.clone()).collect();
    assert_eq!(keys.len(), 300);
    server.stop().await;
}

/// What is read while no commit succeeds would be read again: there is a bound on it. Partitions can be read for as long
/// as a group is without a coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn reading_waits_for_commits_that_fail() {
    let broker = broker();
    let flags = with(flags(&broker.bootstrap()), &["--kafka-in-flight", "64"]);
    let server = server(&flags).await;
    eventually("the topic is read", || server.classifier.is_ready()).await;
    broker
        .fail_next(
            Api::OffsetCommit,
            &[RespErr::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE; 3000],
        )
        .unwrap();
    produce(&broker, 0..16_000);
    metric_becomes(&server, "intentd_kafka_paused", |paused| paused == 1.0).await;
    metric_becomes(&server, "intentd_kafka_in_flight", |count| count == 0.0).await;
    let done = "intentd_kafka_records_total{outcome=\"done\"}";
    let answered = server.metric(done).await;
    // The bound, and what was in flight when it was reached.
    assert!((10_000.0..15_000.0).contains(&answered), "{answered}");
    broker.fail_no_more(Api::OffsetCommit).unwrap();
    all_is_committed(&broker, GROUP).await;
    assert_eq!(server.metric(done).await, 16_000.0);
    server.stop().await;
}
