//! Queue, batches, limits, faults and shutdown of a server, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use intentd::engine::{EngineError, RaggedBatch};
use intentd::server;
use intentd::serving::Phase;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::engine::{Faulty, Gate, Nan, TwoDeep};
use crate::support::http::{Connection, Response, get, head, keep_alive, post_json};
use crate::support::server::{TestServer, config, embedded, eventually};

fn path(number: usize) -> String {
    format!("/predict?query=play+song+{number}")
}

/// Sends `count` requests: the first waits in the engine behind the gate, the others in the queue.
async fn send_behind_gate(server: &TestServer, gate: &Gate, count: usize) -> JoinSet<Response> {
    let mut clients = JoinSet::new();
    let address = server.address;
    clients.spawn(async move { get(address, &path(0), &[]).await });
    let is_waiting = || gate.is_waiting();
    eventually("the first batch waits", is_waiting).await;
    for number in 1..count {
        clients.spawn(async move { get(address, &path(number), &[]).await });
    }
    let waiting = || server.classifier.metrics().queue_depth.get() == count as i64 - 1;
    eventually("the others wait", waiting).await;
    clients
}

#[tokio::test]
async fn waiting_requests_become_one_batch() {
    let (server, gate) = TestServer::gated(&[]).await;
    let clients = send_behind_gate(&server, &gate, 21).await;
    assert_eq!(server.metric("intentd_in_flight").await, 21.0);
    gate.open();
    assert!(
        clients
            .join_all()
            .await
            .iter()
            .all(|answer| answer.status == 200)
    );
    let sizes: Vec<usize> = gate.seen().iter().map(RaggedBatch::sequences).collect();
    assert_eq!(
        sizes,
        [1, 20],
        "no batch was fixed early, and none waited for a timer"
    );
    assert_eq!(server.metric("intentd_batch_size_sum").await, 21.0);
    assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn batches_keep_to_their_limits() {
    let (server, gate) = TestServer::gated(&["--max-batch-texts", "3"]).await;
    let clients = send_behind_gate(&server, &gate, 9).await;
    gate.open();
    clients.join_all().await;
    let sizes: Vec<usize> = gate.seen().iter().map(RaggedBatch::sequences).collect();
    assert_eq!(sizes, [1, 3, 3, 2]);
    server.stop().await;

    let (server, gate) = TestServer::gated(&["--max-batch-tokens", "11"]).await;
    let clients = send_behind_gate(&server, &gate, 9).await;
    gate.open();
    clients.join_all().await;
    let seen = gate.seen();
    assert!(seen.iter().all(|batch| batch.tokens() <= 11), "{seen:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_and_may_retry() {
    for flags in [["--max-concurrency", "5"], ["--max-queue", "4"]] {
        let (server, gate) = TestServer::gated(&[&flags[..], &["--max-texts", "4"]].concat()).await;
        let clients = send_behind_gate(&server, &gate, 5).await;
        let refused = get(server.address, &path(9), &[]).await;
        assert_eq!(refused.status, 429, "{flags:?}");
        assert_eq!(refused.json()["error_type"], "Overloaded");
        assert!(
            refused
                .header("retry-after")
                .unwrap()
                .parse::<u32>()
                .unwrap()
                >= 1
        );
        assert_eq!(
            get(server.address, "/readyz", &[]).await.status,
            200,
            "busy is not unready"
        );
        gate.open();
        assert!(
            clients
                .join_all()
                .await
                .iter()
                .all(|answer| answer.status == 200)
        );
        assert_eq!(get(server.address, &path(9), &[]).await.status, 200);
        assert_eq!(
            server
                .metric("intentd_requests_total{outcome=\"refused\"}")
                .await,
            1.0
        );
        assert_eq!(
            server
                .metric("intentd_requests_total{outcome=\"answered\"}")
                .await,
            6.0
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn a_list_is_admitted_as_a_whole_or_refused() {
    let (server, gate) = TestServer::gated(&["--max-queue", "4", "--max-texts", "4"]).await;
    let clients = send_behind_gate(&server, &gate, 3).await;
    let refused = post_json(server.address, r#"["a", "b", "c"]"#).await;
    assert_eq!(refused.status, 429, "two of three would have had room");
    assert_eq!(server.metric("intentd_queue_depth").await, 2.0);
    gate.open();
    clients.join_all().await;
    assert_eq!(
        post_json(server.address, r#"["a", "b", "c"]"#).await.status,
        200
    );
    server.stop().await;
}

#[tokio::test]
async fn clients_that_leave_early_cost_the_engine_nothing() {
    let (server, gate) = TestServer::gated(&[]).await;
    let mut clients = send_behind_gate(&server, &gate, 1).await;
    let mut gone = Vec::new();
    for number in 100..150 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(&head("GET", &path(number), &[]))
            .await
            .unwrap();
        gone.push(stream);
    }
    let metrics = server.classifier.metrics().clone();
    eventually("they wait", || metrics.queue_depth.get() == 50).await;
    drop(gone);
    eventually("their texts are out of the queue", || {
        metrics.queue_depth.get() == 0
    })
    .await;
    eventually("they are not in flight", || metrics.in_flight.get() == 1).await;
    gate.open();
    assert_eq!(clients.join_next().await.unwrap().unwrap().status, 200);
    assert_eq!(get(server.address, &path(1), &[]).await.status, 200);
    let sizes: Vec<usize> = gate.seen().iter().map(RaggedBatch::sequences).collect();
    assert_eq!(sizes, [1, 1], "the engine never saw the abandoned texts");
    assert_eq!(server.metric("intentd_abandoned_texts_total").await, 50.0);
    assert_eq!(
        server
            .metric("intentd_requests_total{outcome=\"abandoned\"}")
            .await,
        50.0
    );
    server.stop().await;
}

#[tokio::test]
async fn a_failed_batch_is_answered_and_the_server_goes_on() {
    let mut batches = 0;
    let fault = move |_: &RaggedBatch| {
        batches += 1;
        match batches {
            1 => Err(EngineError::Batch("a test's fault".to_owned())),
            2 => panic!("a test's panic"),
            _ => Ok(()),
        }
    };
    let server = TestServer::with_engine(&[], move |engine| Faulty { engine, fault }).await;
    for hint in ["a test's fault", "it panicked"] {
        let answer = get(server.address, &path(0), &[]).await;
        assert_eq!(
            (answer.status, answer.json()["error_type"].as_str()),
            (500, Some("Backend"))
        );
        assert!(
            answer.json()["error"].as_str().unwrap().contains(hint),
            "{answer:?}"
        );
    }
    assert_eq!(get(server.address, &path(0), &[]).await.status, 200);
    assert_eq!(server.metric("intentd_engine_failures_total").await, 2.0);
    server.stop().await;
}

#[tokio::test]
async fn logits_that_are_not_finite_are_refused() {
    let server = TestServer::with_engine(&[], |engine| Nan { engine }).await;
    let answer = post_json(server.address, r#"["a", "b"]"#).await;
    assert_eq!(
        (answer.status, answer.json()["error_type"].as_str()),
        (500, Some("Backend"))
    );
    server.stop().await;
}

/// A refused text does not count as abandoned.
#[tokio::test]
async fn refused_texts_release_their_slots_and_count_as_refused() {
    let server = TestServer::start(&["--max-queue", "3"]).await;
    let long = serde_json::json!({"query": ["a", "b ".repeat(1000)], "truncate": false});
    for _ in 0..5 {
        assert_eq!(
            post_json(server.address, &long.to_string()).await.status,
            422
        );
    }
    assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
    assert_eq!(server.metric("intentd_abandoned_texts_total").await, 0.0);
    assert_eq!(
        server
            .metric("intentd_requests_total{outcome=\"refused\"}")
            .await,
        5.0
    );
    assert_eq!(
        post_json(server.address, r#"["a", "b", "c"]"#).await.status,
        200
    );
    server.stop().await;
}

/// Tokenizing cannot be cancelled, so it must be bounded: a server whose clients send megabytes and leave becomes
/// idle and stops at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_requests_of_clients_that_leave_keep_nothing_busy() {
    let server = TestServer::start(&[]).await;
    let body = serde_json::json!({ "query": "a ".repeat(900_000) }).to_string();
    let length = format!("Content-Length: {}", body.len());
    let mut request = head(
        "POST",
        "/predict",
        &["Content-Type: application/json", &length],
    );
    request.extend_from_slice(body.as_bytes());
    let request = Arc::new(request);
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let (request, address) = (Arc::clone(&request), server.address);
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may answer and close before all is written.
            let _ = stream.write_all(&request).await;
        });
    }
    clients.join_all().await;
    let metrics = server.classifier.metrics().clone();
    eventually("nothing is in flight", || metrics.in_flight.get() == 0).await;
    assert_eq!(get(server.address, &path(0), &[]).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn ports_answer_503_until_the_model_is_loaded() {
    let (loaded, load) = std::sync::mpsc::channel::<()>();
    let config = config(&[]);
    let running = server::start_with(&config, move || {
        load.recv().expect("the test sends the signal");
        Ok(embedded())
    });
    let server = TestServer::wrap(running.unwrap());
    for (path, status) in [
        ("/predict?query=music", 503),
        ("/readyz", 503),
        ("/healthz", 200),
    ] {
        assert_eq!(
            get(server.address, path, &[]).await.status,
            status,
            "{path}"
        );
    }
    assert_eq!(get(server.admin, "/readyz", &[]).await.status, 503);
    assert_eq!(server.metric("intentd_ready").await, 0.0);
    loaded.send(()).unwrap();
    server.ready().await;
    for path in ["/predict?query=music", "/readyz", "/healthz"] {
        assert_eq!(get(server.address, path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(server.metric("intentd_ready").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn admitted_requests_are_answered_while_draining() {
    let (mut server, gate) = TestServer::gated(&[]).await;
    let clients = send_behind_gate(&server, &gate, 10).await;
    server.signal();
    eventually("it drains", || server.classifier.phase() == Phase::Draining).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "new connections are refused"
    );
    gate.open();
    assert!(
        clients
            .join_all()
            .await
            .iter()
            .all(|answer| answer.status == 200)
    );
    server.ended().await.expect("the server ends well");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_aborted() {
    let (mut server, gate) = TestServer::gated(&["--drain-timeout", "0"]).await;
    let clients = send_behind_gate(&server, &gate, 1).await;
    server.signal();
    let error = server.ended().await.unwrap_err();
    assert!(error.to_string().contains("--drain-timeout"), "{error}");
    gate.open();
    drop(clients);
}

/// With nothing to answer there is nothing to abort, however short the timeout.
#[tokio::test]
async fn an_idle_server_stops_cleanly_without_drain_time() {
    let server = TestServer::start(&["--drain-timeout", "0"]).await;
    assert_eq!(get(server.address, &path(0), &[]).await.status, 200);
    server.stop().await;
}

/// Many concurrent clients on a real engine: each gets the same answer as alone, and the server batches.
/// `benches/clients.rs` does the same for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_clients_get_the_same_answers_as_alone() {
    for two_deep in [false, true] {
        let ahead_max = Arc::new(AtomicUsize::new(0));
        let server = if two_deep {
            let ahead_max = Arc::clone(&ahead_max);
            TestServer::with_engine(&[], move |engine| TwoDeep {
                engine,
                ahead_max,
                under_way: 0,
            })
            .await
        } else {
            TestServer::start(&[]).await
        };
        let address = server.address;
        let request = |number: usize| keep_alive(&path(number), "application/json");
        let mut connection = Connection::open(address).await;
        let mut alone = Vec::new();
        for number in 0..64 {
            alone.push(connection.send(&request(number)).await.json());
        }
        let mut clients = JoinSet::new();
        for (number, alone) in alone.into_iter().enumerate() {
            clients.spawn(async move {
                let mut connection = Connection::open(address).await;
                for _ in 0..20 {
                    let answer = connection.send(&request(number)).await;
                    assert_eq!(answer.status, 200);
                    assert_eq!(answer.json()["label"], alone["label"]);
                    let score = |json: &serde_json::Value| json["score"].as_f64().unwrap();
                    assert!((score(&answer.json()) - score(&alone)).abs() < 1e-5);
                }
            });
        }
        clients.join_all().await;
        let batches = server.metric("intentd_batch_size_count").await;
        assert!(
            batches < 64.0 + 1280.0,
            "some of 1280 requests shared a batch"
        );
        assert_eq!(server.metric("intentd_batch_size_sum").await, 64.0 + 1280.0);
        assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
        assert_eq!(
            ahead_max.load(Ordering::Relaxed),
            if two_deep { 2 } else { 0 }
        );
        server.stop().await;
    }
}
