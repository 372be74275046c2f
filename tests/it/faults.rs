//! Engines that fail, hang, run out of memory or run ahead, behind a real server.

use std::sync::Arc;

use intentd::engine::{EngineError, RaggedBatch};
use intentd::metrics::SurfaceLabel;
use intentd::model::{Text, TooLong};
use intentd::serving::{Attempt, Phase, Request};

use crate::support::engine::{BadUpkeep, Faulty, Gate, Gated, Manual, ManualDevice};
use crate::support::http::{get, post_json};
use crate::support::server::{TestServer, eventually};

fn path(number: usize) -> String {
    format!("/predict?query=play+song+{number}")
}

#[tokio::test]
async fn a_lost_engine_ends_the_server() {
    let fault = |_: &RaggedBatch| Err(EngineError::Lost("a test's fault".to_owned()));
    let server = TestServer::with_engine(&[], move |engine| Faulty { engine, fault }).await;
    let answer = get(server.address, &path(0), &[]).await;
    assert_eq!(
        (answer.status, answer.json()["error_type"].as_str()),
        (503, Some("Unhealthy"))
    );
    let classifier = Arc::clone(&server.classifier);
    eventually("it knows that it is lost", || {
        classifier.phase() == Phase::Lost
    })
    .await;
    let request = Request {
        texts: vec![Text::Single("a".to_owned())],
        too_long: TooLong::Refuse,
    };
    assert_eq!(
        server
            .classifier
            .offer(SurfaceLabel::new("predict"), None, Attempt::default())
            .classify(request)
            .await
            .unwrap_err()
            .status(),
        503
    );
    assert!(
        server
            .ended()
            .await
            .unwrap_err()
            .to_string()
            .contains("a test's fault")
    );
}

#[tokio::test]
async fn a_batch_too_large_for_the_device_is_split_and_answered_in_order() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sizes = Arc::clone(&seen);
    let fault = move |batch: &RaggedBatch| {
        sizes.lock().unwrap().push(batch.sequences());
        let tokens = batch.tokens();
        match batch.sequences() {
            ..=2 => Ok(()),
            _ => Err(EngineError::OutOfMemory { tokens }),
        }
    };
    let server = TestServer::with_engine(&[], move |engine| Faulty { engine, fault }).await;
    let body = r#"["play jazz", "book a table for two", "play jazz", "will it rain", "play jazz", "asdf", "play jazz"]"#;
    let answer = post_json(server.address, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let whole = TestServer::start(&[]).await;
    let expected = post_json(whole.address, body).await;
    assert_eq!(answer.json(), expected.json());
    assert_eq!(*seen.lock().unwrap(), [7, 3, 1, 2, 4, 2, 2]);
    assert_eq!(server.metric("intentd_engine_failures_total").await, 0.0);
    assert!(server.metric("intentd_engine_busy_seconds_total").await > 0.0);
    whole.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_text_too_large_for_the_device_is_refused_alone() {
    let mut full = true;
    let fault = move |batch: &RaggedBatch| {
        let tokens = batch.tokens();
        match std::mem::replace(&mut full, false) {
            true => Err(EngineError::OutOfMemory { tokens }),
            false => Ok(()),
        }
    };
    let server = TestServer::with_engine(&[], move |engine| Faulty { engine, fault }).await;
    let refused = get(server.address, &path(0), &[]).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error_type"], "Backend");
    assert!(refused.header("retry-after").is_some());
    let series = "intentd_refused_total{reason=\"memory\"}";
    assert_eq!(server.metric(series).await, 1.0);
    assert_eq!(get(server.address, &path(0), &[]).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_hung_engine_is_given_up() {
    let gate = Gate::closed();
    let engines = Arc::clone(&gate);
    let flags = ["--engine-timeout", "3"];
    let server = TestServer::with_engine(&flags, |engine| Gated {
        engine,
        gate: engines,
    })
    .await;
    let address = server.address;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..3 {
        clients.spawn(async move { get(address, &path(number), &[]).await });
    }
    for answer in clients.join_all().await {
        assert_eq!(
            answer.status, 503,
            "the one in the engine and those behind it"
        );
        assert_eq!(answer.json()["error_type"], "Unhealthy");
    }
    assert_eq!(server.classifier.phase(), Phase::Lost);
    let error = server.ended().await.unwrap_err();
    assert!(error.is_engine_lost());
    assert!(error.to_string().contains("--engine-timeout"), "{error}");
    gate.open();
}

#[tokio::test]
async fn an_engine_that_fails_in_upkeep_is_lost_after_its_batch_is_answered() {
    let lost: fn() -> Result<(), EngineError> = || Err(EngineError::Lost("fell off".to_owned()));
    for fault in [lost, || panic!("a test's panic")] {
        let server = TestServer::with_engine(&[], move |engine| BadUpkeep { engine, fault }).await;
        assert_eq!(get(server.address, &path(0), &[]).await.status, 200);
        assert!(server.ended().await.unwrap_err().is_engine_lost());
    }
}

/// It is then unknown which of the two batches the engine would answer next.
#[tokio::test]
async fn a_panic_with_another_batch_in_flight_loses_the_engine() {
    let device = Arc::new(ManualDevice::default());
    let engines = Arc::clone(&device);
    let mut batches = 0;
    let fault = move |_: &RaggedBatch| {
        batches += 1;
        assert!(batches < 2, "a test's panic");
        Ok(())
    };
    let server = TestServer::with_engine(&[], move |engine| Manual {
        engine: Box::new(Faulty { engine, fault }),
        device: engines,
    })
    .await;
    let address = server.address;
    let first = tokio::spawn(async move { get(address, &path(0), &[]).await });
    eventually("the first runs", || device.submitted().len() == 1).await;
    let second = get(address, &path(1), &[]).await;
    assert_eq!(second.status, 503);
    assert_eq!(first.await.unwrap().status, 503);
    assert!(server.ended().await.unwrap_err().is_engine_lost());
}

#[tokio::test]
async fn at_most_one_batch_is_enqueued_ahead() {
    let device = Arc::new(ManualDevice::default());
    let engines = Arc::clone(&device);
    let server = TestServer::with_engine(&[], |engine| Manual {
        engine,
        device: engines,
    })
    .await;
    let address = server.address;
    let mut clients = tokio::task::JoinSet::new();
    let mut send = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            clients.spawn(async move { get(address, &path(number), &[]).await });
        }
    };
    send(0..1);
    eventually("the first runs", || device.submitted() == [1]).await;
    send(1..2);
    eventually("the second is behind it", || device.submitted() == [1, 1]).await;
    send(2..7);
    let waiting = || server.classifier.metrics().queue_depth.get() == 5;
    eventually("the others wait", waiting).await;
    assert_eq!(device.submitted(), [1, 1], "at most one batch ahead");
    device.finish(1);
    let bound = || device.submitted() == [1, 1, 5];
    eventually("what waited became one batch", bound).await;
    device.finish(2);
    for answer in clients.join_all().await {
        assert_eq!(answer.status, 200);
    }
    server.stop().await;
}
