//! Access lists: ready means that the topic can be read and the answers can be written.

use std::time::Duration;

use super::broker::{PASSWORD, shared};
use crate::support::server::{TestServer, eventually};

/// Flags of a member that logs in as `user`.
fn flags(user: &str, group: &str, topic: &str, protocol: &str, password: &str) -> Vec<String> {
    let bootstrap = format!("127.0.0.1:{}", shared().ports.login);
    let mut flags = vec!["--kafka-brokers".to_owned(), bootstrap];
    for (flag, value) in [
        ("--kafka-topic", topic),
        ("--kafka-group", group),
        ("--kafka-group-protocol", protocol),
        ("--kafka-config", "security.protocol=SASL_PLAINTEXT"),
        ("--kafka-config", "sasl.mechanism=PLAIN"),
        ("--kafka-config", &format!("sasl.username={user}")),
        ("--kafka-config", &format!("sasl.password={password}")),
    ] {
        flags.extend([flag.to_owned(), value.to_owned()]);
    }
    flags
}

async fn start(flags: &[String]) -> TestServer {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    TestServer::start(&flags).await
}

/// Longer than it took to become ready without access: a member that was given no partition counted as joined after
/// five seconds. librdkafka reports most denials once.
const WITHOUT_ACCESS: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_forbidden_is_not_read() {
    let broker = shared();
    broker.create_topic("forbidden-group", 1, &[]).await;
    let topic = ["--operation", "Read", "--topic", "forbidden-group"];
    broker.allow("member", &topic);
    let mut servers = Vec::new();
    for protocol in ["classic", "consumer"] {
        let group = format!("forbidden-{protocol}");
        let flags = flags("member", &group, "forbidden-group", protocol, PASSWORD);
        servers.push((group, start(&flags).await));
    }
    tokio::time::sleep(WITHOUT_ACCESS).await;
    for (group, server) in &servers {
        assert!(!server.classifier.is_ready(), "{group}");
        broker.allow("member", &["--operation", "Read", "--group", group]);
    }
    for (_, server) in servers {
        eventually("it is allowed to read", || server.classifier.is_ready()).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_only_be_described_is_not_read() {
    let broker = shared();
    let topic = "forbidden-topic";
    broker.create_topic(topic, 1, &[]).await;
    broker.allow("reader", &["--operation", "Describe", "--topic", topic]);
    broker.allow("reader", &["--operation", "Read", "--group", "readers"]);
    let server = start(&flags("reader", "readers", topic, "classic", PASSWORD)).await;
    tokio::time::sleep(WITHOUT_ACCESS).await;
    assert!(!server.classifier.is_ready());
    broker.allow("reader", &["--operation", "Read", "--topic", topic]);
    eventually("it is allowed to read", || server.classifier.is_ready()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_may_not_be_written_are_kept_and_shown() {
    let broker = shared();
    let (topic, results) = ("writable-in", "writable-out");
    broker.create_topic(topic, 1, &[]).await;
    broker.create_topic(results, 1, &[]).await;
    broker.allow("nobody", &["--operation", "Read", "--topic", topic]);
    broker.allow("nobody", &["--operation", "Describe", "--topic", results]);
    broker.allow("nobody", &["--operation", "Read", "--group", "writers"]);
    let mut flags = flags("nobody", "writers", topic, "classic", PASSWORD);
    flags.extend(["--kafka-results-topic".to_owned(), results.to_owned()]);
    let server = start(&flags).await;
    eventually("the topic is read", || server.classifier.is_ready()).await;
    broker.produce(topic, 0..10);
    eventually("it is not ready", || !server.classifier.is_ready()).await;
    broker.allow("nobody", &["--operation", "Write", "--topic", results]);
    eventually("it is ready again", || server.classifier.is_ready()).await;
    broker.committed("writers", topic, 10).await;
    assert_eq!(broker.keys(results, 10).await.len(), 10);
    server.stop().await;
}

/// A denial that came later was forgotten after a while, and the server was ready again without reading anything.
#[tokio::test(flavor = "multi_thread")]
async fn access_that_is_taken_away_is_shown_until_it_is_back() {
    let broker = shared();
    let topic = "taken-away";
    broker.create_topic(topic, 1, &[]).await;
    let read = ["--operation", "Read", "--topic", topic];
    broker.allow("member", &read);
    broker.allow("member", &["--operation", "Read", "--group", topic]);
    let server = start(&flags("member", topic, topic, "classic", PASSWORD)).await;
    broker.produce(topic, 0..10);
    broker.committed(topic, topic, 10).await;
    assert!(server.classifier.is_ready());
    broker.forbid("member", &read);
    // The broker notices when it is asked next.
    broker.produce(topic, 10..20);
    eventually("it is not ready", || !server.classifier.is_ready()).await;
    tokio::time::sleep(WITHOUT_ACCESS).await;
    assert!(!server.classifier.is_ready());
    broker.allow("member", &read);
    eventually("it is ready again", || server.classifier.is_ready()).await;
    broker.committed(topic, topic, 20).await;
    server.stop().await;
}
