//! Overload, and requests whose deadline has passed.

use std::time::Duration;

use intentd::engine::RaggedBatch;
use tokio::task::JoinSet;

use crate::support::engine::Faulty;
use crate::support::http::{get, post, post_json};
use crate::support::server::{TestServer, eventually};

fn path(number: usize) -> String {
    format!("/predict?query=play+song+{number}")
}

/// A server whose engine takes two milliseconds per token.
async fn slow(flags: &[&str]) -> TestServer {
    let fault = |batch: &RaggedBatch| {
        let tokens = u32::try_from(batch.tokens()).expect("batches are small");
        std::thread::sleep(tokens * Duration::from_millis(2));
        Ok(())
    };
    TestServer::with_engine(flags, move |engine| Faulty { engine, fault }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_would_be_late_are_refused_at_once_and_others_answered() {
    let server = slow(&["--slo", "100ms"]).await;
    let mut clients = JoinSet::new();
    for number in 0..200 {
        let address = server.address;
        clients.spawn(async move { get(address, &path(number), &[]).await });
    }
    let (mut answered, mut refused) = (0, 0);
    for answer in clients.join_all().await {
        match answer.status {
            200 => answered += 1,
            429 => {
                refused += 1;
                assert_eq!(answer.json()["error_type"], "Overloaded");
                let error = answer.json()["error"].to_string();
                assert!(error.contains("--slo"), "{error}");
                let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait), "{wait}");
            }
            other => panic!("{other}"),
        }
    }
    assert!(
        answered > 0 && refused > 0,
        "{answered} answered, {refused} refused"
    );
    let series = "intentd_refused_total{reason=\"overload\"}";
    assert_eq!(server.metric(series).await, f64::from(refused));
    assert_eq!(server.metric("intentd_offered_requests_total").await, 200.0);
    assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
    assert_eq!(
        get(server.address, &path(0), &[]).await.status,
        200,
        "it has recovered"
    );
    server.stop().await;
}

/// A text that takes longer than the objective on its own may still wait for another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_objective_that_no_server_can_keep_is_stretched() {
    let server = slow(&["--slo", "20ms"]).await;
    let address = server.address;
    // Words of usual length, because the first forecast is based on bytes.
    let long = format!("/predict?query={}", "jazz+".repeat(100));
    let first = long.clone();
    let first = tokio::spawn(async move { get(address, &first, &[]).await });
    let metrics = server.classifier.metrics().clone();
    eventually("the first is in", || metrics.in_flight.get() == 1).await;
    assert_eq!(get(address, &long, &[]).await.status, 200);
    assert_eq!(first.await.unwrap().status, 200);
    server.stop().await;
}

/// The list arrives first and is long. The single text does not wait for all of it.
#[tokio::test]
async fn a_list_does_not_keep_single_texts_waiting() {
    let flags = ["--max-batch-texts", "4", "--max-texts", "200"];
    let (server, gate) = TestServer::gated(&flags).await;
    let address = server.address;
    let first = tokio::spawn(async move { get(address, &path(0), &[]).await });
    eventually("the first batch waits at the gate", || gate.is_waiting()).await;
    let list: Vec<String> = (0..200).map(|number| format!("list {number}")).collect();
    let body = serde_json::to_string(&list).unwrap();
    let list = tokio::spawn(async move { post_json(address, &body).await });
    let metrics = server.classifier.metrics().clone();
    eventually("the list waits", || metrics.queue_depth.get() == 200).await;
    // Recognizable by its length.
    let alone = format!("/predict?query={}", "a+".repeat(30));
    let single = tokio::spawn(async move { get(address, &alone, &[]).await });
    eventually("the single text waits", || metrics.queue_depth.get() == 201).await;
    gate.open();
    for answer in [
        first.await.unwrap(),
        list.await.unwrap(),
        single.await.unwrap(),
    ] {
        assert_eq!(answer.status, 200);
    }
    let seen = gate.seen();
    assert_eq!(seen.len(), 1 + 51);
    assert_eq!(seen[1].sequences(), 4, "the second batch is full");
    let longest = seen[1].ranges().map(|range| range.len()).max();
    assert!(
        longest > Some(30),
        "the single text went with the batch after the first"
    );
    server.stop().await;
}

#[tokio::test]
async fn lists_get_at_most_their_share_of_the_queue() {
    let flags = [
        "--max-queue",
        "20",
        "--max-list-share",
        "40",
        "--max-texts",
        "5",
    ];
    let (server, gate) = TestServer::gated(&flags).await;
    let address = server.address;
    let mut clients = JoinSet::new();
    clients.spawn(async move { get(address, &path(0), &[]).await });
    eventually("the first batch waits at the gate", || gate.is_waiting()).await;
    clients.spawn(async move { post_json(address, r#"["a", "b", "c", "d", "e"]"#).await });
    let metrics = server.classifier.metrics().clone();
    eventually("the list waits", || metrics.queue_depth.get() == 5).await;
    let refused = post_json(address, r#"["a", "b", "c", "d"]"#).await;
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("--max-list-share"), "{refused:?}");
    clients.spawn(async move { post_json(address, r#"["a", "b", "c"]"#).await });
    eventually("the shorter one has room", || {
        metrics.queue_depth.get() == 8
    })
    .await;
    for number in 0..12 {
        clients.spawn(async move { get(address, &path(number), &[]).await });
    }
    eventually("single texts have the rest", || {
        metrics.queue_depth.get() == 20
    })
    .await;
    assert_eq!(get(address, &path(0), &[]).await.status, 429, "and no more");
    gate.open();
    assert!(
        clients
            .join_all()
            .await
            .iter()
            .all(|answer| answer.status == 200)
    );
    server.stop().await;
}

#[tokio::test]
async fn an_expired_request_never_reaches_the_engine() {
    let (server, gate) = TestServer::gated(&[]).await;
    let address = server.address;
    let first = tokio::spawn(async move { get(address, &path(0), &[]).await });
    eventually("the first batch waits at the gate", || gate.is_waiting()).await;
    let late = get(address, &path(1), &["x-request-timeout-ms: 30"]).await;
    assert_eq!(
        (late.status, late.json()["error_type"].as_str()),
        (504, Some("Timeout"))
    );
    let at_once = get(address, &path(2), &["x-request-timeout-ms: 0"]).await;
    assert_eq!(at_once.status, 504);
    let nonsense = get(address, &path(3), &["x-request-timeout-ms: soon"]).await;
    assert_eq!(
        (nonsense.status, nonsense.json()["error_type"].as_str()),
        (400, Some("Malformed"))
    );
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(
        get(address, &path(4), &["x-request-timeout-ms: 30000"])
            .await
            .status,
        200
    );
    let sizes: Vec<usize> = gate.seen().iter().map(RaggedBatch::sequences).collect();
    assert_eq!(sizes, [1, 1]);
    assert_eq!(
        server
            .metric("intentd_refused_total{reason=\"deadline\"}")
            .await,
        2.0
    );
    assert_eq!(server.metric("intentd_abandoned_texts_total").await, 0.0);
    assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn the_request_timeout_limits_every_request() {
    let (server, gate) = TestServer::gated(&["--request-timeout", "50ms"]).await;
    let address = server.address;
    // The engine has taken it, but its client is not kept waiting and cannot ask for more time.
    assert_eq!(
        get(address, &path(0), &["x-request-timeout-ms: 60000"])
            .await
            .status,
        504
    );
    // Long enough on any machine.
    tokio::time::sleep(Duration::from_millis(60)).await;
    // By now the engine is late, and 50 ms would not be enough.
    assert_eq!(get(address, &path(1), &[]).await.status, 429);
    gate.open();
    let metrics = server.classifier.metrics().clone();
    eventually("nothing is left", || metrics.in_flight.get() == 0).await;
    server.stop().await;
}

/// A request that is forecast to miss its deadline is refused, even if its client waited longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_cannot_be_kept_is_refused_before_any_work() {
    let server = slow(&["--slo", "60s"]).await;
    let address = server.address;
    let list = serde_json::to_string(&vec!["play some jazz"; 100]).unwrap();
    let list = tokio::spawn(async move { post_json(address, &list).await });
    let metrics = server.classifier.metrics().clone();
    eventually("the list is in", || metrics.in_flight.get() == 1).await;
    let body = serde_json::to_string(&vec!["play some jazz"; 100]).unwrap();
    let headers = "application/json\r\nx-request-timeout-ms: 200";
    let refused = post(address, "/predict", headers, &body).await;
    // No replica could keep this deadline, so the load is not to blame.
    assert_eq!(refused.status, 504, "{refused:?}");
    assert!(refused.body.contains("x-request-timeout-ms"), "{refused:?}");
    let headers = "application/json\r\nx-request-timeout-ms: 1100";
    let refused = post(address, "/predict", headers, &body).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(list.await.unwrap().status, 200);
    server.stop().await;
}
