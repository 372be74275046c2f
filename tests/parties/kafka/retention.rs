//! Records that retention removes, and where a group begins.

use std::time::Duration;

use super::broker::shared;
use crate::support::http;
use crate::support::server::{TestServer, eventually};

/// Flags of a member of a group that reads a topic.
fn flags<'a>(bootstrap: &'a str, topic: &'a str, group: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let flags = [
        "--kafka-brokers",
        bootstrap,
        "--kafka-topic",
        topic,
        "--kafka-group",
        group,
    ];
    [&flags[..], more].concat()
}

/// Flags of a group that begins at the end.
fn latest<'a>(
    bootstrap: &'a str,
    topic: &'a str,
    group: &'a str,
    protocol: &'a str,
) -> Vec<&'a str> {
    let more = [
        "--kafka-start",
        "latest",
        "--kafka-group-protocol",
        protocol,
    ];
    flags(bootstrap, topic, group, &more)
}

const REMOVED: &str = "intentd_kafka_expired_records_total";

/// librdkafka's own "latest" would also apply where retention has passed the group's offset: 600 records that were
/// there were skipped.
#[tokio::test(flavor = "multi_thread")]
async fn latest_is_for_a_group_that_has_read_nothing() {
    let broker = shared();
    let topic = "latest";
    broker.create_topic(topic, 1, &[]).await;
    broker.produce(topic, 0..100);
    let bootstrap = broker.bootstrap();
    for protocol in ["classic", "consumer"] {
        let group = format!("latest-{protocol}");
        let server = TestServer::start(&latest(&bootstrap, topic, &group, protocol)).await;
        eventually("the topic is read", || server.classifier.is_ready()).await;
        let done = "intentd_kafka_records_total{outcome=\"done\"}";
        assert_eq!(server.metric(done).await, 0.0, "it began at the end");
        let errors = "intentd_kafka_errors_total{operation=\"read\"}";
        assert_eq!(
            server.metric(errors).await,
            0.0,
            "the end of a partition is no error"
        );
        server.stop().await;
    }
    broker.committed("latest-classic", topic, 100).await;
    // While no member is there, 600 are written, and retention leaves the last 300.
    broker.produce(topic, 100..700);
    broker.delete_records(topic, 400).await;
    for protocol in ["classic", "consumer"] {
        let group = format!("latest-{protocol}");
        let server = TestServer::start(&latest(&bootstrap, topic, &group, protocol)).await;
        broker.committed(&group, topic, 700).await;
        let done = "intentd_kafka_records_total{outcome=\"done\"}";
        assert_eq!(server.metric(done).await, 300.0);
        eventually_metric(&server, REMOVED, 300.0).await;
        eventually_metric(&server, "intentd_kafka_lag_records", 0.0).await;
        server.stop().await;
    }
}

/// A topic that is new to a group with members: brokers take commits from members only, so a process that wanted to
/// commit first would never have begun.
#[tokio::test(flavor = "multi_thread")]
async fn latest_holds_for_a_topic_that_is_new_to_a_group() {
    let broker = shared();
    let bootstrap = broker.bootstrap();
    for topic in ["old-topic", "new-topic"] {
        broker.create_topic(topic, 1, &[]).await;
        broker.produce(topic, 0..50);
    }
    let group = "grows";
    let member = |topics| latest(&bootstrap, topics, group, "classic");
    let first = TestServer::start(&member("old-topic")).await;
    eventually("the topic is read", || first.classifier.is_ready()).await;
    let second = TestServer::start(&member("old-topic,new-topic")).await;
    broker.committed(group, "new-topic", 50).await;
    eventually("it has joined", || second.classifier.is_ready()).await;
    broker.produce("new-topic", 50..60);
    broker.committed(group, "new-topic", 60).await;
    let done = "intentd_kafka_records_total{outcome=\"done\"}";
    assert_eq!(second.metric(done).await, 10.0, "it began at the end");
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_records_are_all_gone_passes_them() {
    let broker = shared();
    let topic = "gone";
    broker.create_topic(topic, 1, &[]).await;
    broker.produce(topic, 0..10);
    let bootstrap = broker.bootstrap();
    let flags = flags(&bootstrap, topic, topic, &[]);
    let server = TestServer::start(&flags).await;
    broker.committed(topic, topic, 10).await;
    server.stop().await;
    broker.produce(topic, 10..60);
    broker.delete_records(topic, 60).await;
    let server = TestServer::start(&flags).await;
    // Nothing is left that could be read, and the group's offset moves all the same.
    broker.committed(topic, topic, 60).await;
    eventually_metric(&server, REMOVED, 50.0).await;
    eventually_metric(&server, "intentd_kafka_lag_records", 0.0).await;
    broker.produce(topic, 60..70);
    broker.committed(topic, topic, 70).await;
    server.stop().await;
}

/// Gauges of a topic that was deleted went stale, and nothing was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_has_no_lag() {
    let broker = shared();
    let topic = "deleted";
    broker.create_topic(topic, 1, &[]).await;
    broker.produce(topic, 0..10);
    let bootstrap = broker.bootstrap();
    let server = TestServer::start(&flags(&bootstrap, topic, topic, &[])).await;
    broker.committed(topic, topic, 10).await;
    let series = "intentd_kafka_partition_lag_records";
    eventually_metric(&server, series, 0.0).await;
    broker.delete_topic(topic).await;
    let is_gone = async || {
        let answer = http::get(server.admin, "/metrics", &[]).await;
        http::metric(&answer.body, series).is_none()
    };
    for _ in 0..600 {
        if is_gone().await {
            return server.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{series} is still there");
}

/// Waits until a series has this value. It may not be there yet.
async fn eventually_metric(server: &TestServer, series: &str, expected: f64) {
    let mut found = None;
    for _ in 0..600 {
        let answer = http::get(server.admin, "/metrics", &[]).await;
        found = http::metric(&answer.body, series);
        if found == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{series} is {found:?}, not {expected}");
}
