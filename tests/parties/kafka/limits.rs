//! Limits of topics that only a broker enforces.

use std::collections::BTreeSet;

use super::broker::shared;
use crate::support::process::{run, stdout};
use crate::support::server::TestServer;

/// The client sends answers in batches. One that was larger than the topic takes made dead letters of all its answers,
/// or dropped them, though each would have fitted.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_fit_singly_are_written_singly() {
    let broker = shared();
    let (topic, results) = ("many", "small-batches");
    broker.create_topic(topic, 1, &[]).await;
    let small = [("max.message.bytes", "1500")];
    broker.create_topic(results, 1, &small).await;
    broker.produce(topic, 0..1000);
    let bootstrap = broker.bootstrap();
    let flags = [
        "--kafka-brokers",
        &bootstrap,
        "--kafka-topic",
        topic,
        "--kafka-group",
        topic,
        "--kafka-results-topic",
        results,
        // So that many answers are due at once.
        "--kafka-config",
        "linger.ms=200",
    ];
    let server = TestServer::start(&flags).await;
    broker.committed(topic, topic, 1000).await;
    let keys = broker.keys(results, 1000).await;
    let once: BTreeSet<_> = keys.iter().collect();
    assert_eq!((once.len(), keys.len()), (1000, 1000), "each once");
    let dropped = "intentd_kafka_records_total{outcome=\"dropped\"}";
    assert_eq!(server.metric(dropped).await, 0.0);
    server.stop().await;
}

/// The latencies were clamped at 2 ms, and printed as 0.0.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_reports_latencies() {
    let broker = shared();
    broker.create_topic("load", 3, &[]).await;
    let bootstrap = broker.bootstrap();
    let flags = [
        "bench",
        "kafka",
        "--kafka-brokers",
        &bootstrap,
        "--kafka-topic",
        "load",
        "--load",
        "constant:50",
        "--duration",
        "2s",
    ];
    let output = run(&flags, "");
    let text = stdout(&output);
    assert!(text.contains("100 acknowledged"), "{text}");
    let (_, times) = text.split_once("acknowledged after, in ms: ").unwrap();
    let p50: f64 = times.split(' ').next().unwrap().parse().unwrap();
    assert!(p50 > 0.0, "{text}");
}
