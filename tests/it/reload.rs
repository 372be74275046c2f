//! Reloads of model and keys while the server runs, and a model whose batches fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use intentd::engine::{EngineError, RaggedBatch};
use tokio::task::JoinSet;

use crate::support::checkpoint::{catalog, write};
use crate::support::engine::{Faulty, Gate, Gated};
use crate::support::http::{Connection, get, head, keep_alive, post, post_json, send};
use crate::support::process::Server;
use crate::support::server::{TestServer, eventually};

const PATH: &str = "/predict?query=play+some+jazz";

/// Timeout for an answer that a fault would delay for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A checkpoint whose labels are all called `name`.
fn checkpoint(directory: &Path, name: &'static str) {
    let mut spec = catalog::spec("cased").unwrap();
    let count = spec.labels.len();
    let labels: Vec<&'static str> = (0..count)
        .map(|label| &*Box::leak(format!("{name}{label}").into_boxed_str()))
        .collect();
    spec.labels = labels;
    write(&spec, directory).unwrap();
}

async fn reload(server: &TestServer) -> crate::support::http::Response {
    post(server.admin, "/reload", "application/json", "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_loses_no_request() {
    let directory = tempfile::tempdir().unwrap();
    checkpoint(directory.path(), "old");
    let model = directory.path().to_str().unwrap().to_owned();
    let server = TestServer::start(&["--model", &model]).await;
    let address = server.address;
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let done = Arc::clone(&done);
        clients.spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut labels = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let answer = connection.send(&keep_alive(PATH, "text/plain")).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                labels.push(answer.body.starts_with("new"));
            }
            labels
        });
    }
    for name in ["new", "old", "new", "old", "new"] {
        checkpoint(directory.path(), name);
        let answer = reload(&server).await;
        assert_eq!(
            (answer.status, answer.json()["status"].as_str()),
            (200, Some("reloaded"))
        );
        let label = get(address, PATH, &["Accept: text/plain"]).await.body;
        assert!(label.starts_with(name), "{label}");
    }
    done.store(true, Ordering::Relaxed);
    let labels: Vec<bool> = clients.join_all().await.into_iter().flatten().collect();
    assert!(
        labels.contains(&true) && labels.contains(&false),
        "both have answered"
    );
    assert_eq!(
        server
            .metric("intentd_reloads_total{outcome=\"done\"}")
            .await,
        5.0
    );
    let refused = server
        .metric("intentd_requests_total{outcome=\"refused\"}")
        .await;
    assert_eq!(refused, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn a_failed_reload_keeps_the_old_model() {
    let directory = tempfile::tempdir().unwrap();
    checkpoint(directory.path(), "old");
    let server = TestServer::start(&["--model", directory.path().to_str().unwrap()]).await;
    std::fs::write(directory.path().join("config.json"), "{}").unwrap();
    let answer = reload(&server).await;
    assert_eq!(answer.status, 422);
    let error = answer.json()["error"].to_string();
    assert!(
        error.contains("was kept") && error.contains("config.json"),
        "{error}"
    );
    assert_eq!(get(server.address, "/readyz", &[]).await.status, 200);
    assert!(
        get(server.address, PATH, &["Accept: text/plain"])
            .await
            .body
            .starts_with("old")
    );
    assert_eq!(
        server
            .metric("intentd_reloads_total{outcome=\"failed\"}")
            .await,
        1.0
    );
    assert_eq!(get(server.admin, "/reload", &[]).await.status, 405);
    let page = head("POST", "/reload", &["Origin: https://evil.example"]);
    assert_eq!(send(server.admin, &page).await.status, 403, "not for pages");
    assert_eq!(
        post(server.address, "/reload", "text/plain", "")
            .await
            .status,
        404
    );
    server.stop().await;
}

/// The old model answers what it has taken, and nothing waits for it.
#[tokio::test]
async fn requests_are_answered_by_the_model_that_tokenized_them() {
    let gate = Gate::closed();
    let engines = Arc::clone(&gate);
    let server = TestServer::with_engine(&[], |engine| Gated {
        engine,
        gate: engines,
    })
    .await;
    let address = server.address;
    let old = tokio::spawn(async move { get(address, PATH, &[]).await });
    eventually("it waits at the gate", || gate.is_waiting()).await;
    // The reload loads the embedded model with its own engine.
    assert_eq!(reload(&server).await.status, 200);
    assert_eq!(
        get(address, PATH, &[]).await.status,
        200,
        "the new one answers"
    );
    assert_eq!(gate.seen().len(), 1);
    gate.open();
    assert_eq!(old.await.unwrap().status, 200);
    server.stop().await;
}

/// Replaces a file by a pipe without a writer.
fn pipe(path: &Path) {
    std::fs::remove_file(path).unwrap();
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn pipes_and_devices_are_refused_and_the_next_reload_works() {
    let directory = tempfile::tempdir().unwrap();
    checkpoint(directory.path(), "old");
    let server = TestServer::start(&["--model", directory.path().to_str().unwrap()]).await;
    let files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        pipe(&path);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, reload(&server)).await;
        let answer = answer.expect("a pipe is not waited for");
        let error = answer.json()["error"].to_string();
        assert_eq!(answer.status, 422, "{error}");
        assert!(error.contains("a pipe, not a regular file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let answer = reload(&server).await;
        let error = answer.json()["error"].to_string();
        assert!(error.contains("a device, not a regular file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        checkpoint(directory.path(), "new");
    }
    assert_eq!(reload(&server).await.status, 200);
    let label = get(server.address, PATH, &["Accept: text/plain"]).await;
    assert!(label.body.starts_with("new"), "{label:?}");
    server.stop().await;
}

#[tokio::test]
async fn keys_in_a_pipe_are_reported_and_can_be_read_later() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "old\n").unwrap();
    let server = TestServer::start(&["--api-keys", keys.to_str().unwrap()]).await;
    pipe(&keys);
    let request = head("POST", "/reload", &["X-Api-Key: old"]);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, send(server.admin, &request)).await;
    let answer = answer.expect("a pipe is not waited for");
    let error = answer.json()["error"].to_string();
    assert!(
        error.contains("--api-keys") && error.contains("a pipe"),
        "{error}"
    );
    std::fs::remove_file(&keys).unwrap();
    std::fs::write(&keys, "new\n").unwrap();
    assert_eq!(send(server.admin, &request).await.status, 200);
    for (key, status) in [("old", 401), ("new", 200)] {
        let header = format!("X-Api-Key: {key}");
        let answer = get(server.address, PATH, &[&header]).await;
        assert_eq!(answer.status, status, "{key}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_signal_reloads_model_and_keys() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "old\n").unwrap();
    let flags = ["--port", "0", "--api-keys", keys.to_str().unwrap()];
    let mut server = Server::start(&flags, &[]);
    server.ready().await;
    let ask = async |key: &str| get(server.address, PATH, &[key]).await;
    let refused = ask("Authorization: Bearer new").await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    assert_eq!(refused.json()["error_type"], "Unauthorized");
    assert_eq!(ask("Authorization: Bearer old").await.status, 200);
    std::fs::write(&keys, "fresh-secret\n").unwrap();
    server.kill("HUP");
    while ask("x-api-key: fresh-secret").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ask("Authorization: Bearer old").await.status, 401);
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("keys replaced") && log.contains("SIGHUP"),
        "{log}"
    );
    assert!(!log.contains("secret"), "a key is in the log: {log}");
}

#[tokio::test]
async fn a_poisonous_text_fails_only_half_of_its_batch() {
    let gate = Gate::closed();
    let engines = Arc::clone(&gate);
    // The one text with more than 20 tokens fails every batch that contains it.
    let fault = |batch: &RaggedBatch| {
        let poison = batch.ranges().any(|range| range.len() > 20);
        assert!(!poison, "a test's panic");
        Ok(())
    };
    let server = TestServer::with_engine(&[], move |engine| Gated {
        engine: Box::new(Faulty { engine, fault }),
        gate: engines,
    })
    .await;
    let address = server.address;
    let first = tokio::spawn(async move { get(address, PATH, &[]).await });
    eventually("the first batch waits at the gate", || gate.is_waiting()).await;
    let mut clients = JoinSet::new();
    let metrics = server.classifier.metrics().clone();
    for number in 0..8 {
        let poison = format!("/predict?query={}", "a+".repeat(30));
        let path = if number == 0 { poison } else { PATH.to_owned() };
        clients.spawn(async move { get(address, &path, &[]).await.status });
        // In this order.
        eventually("it waits", || metrics.queue_depth.get() == number + 1).await;
    }
    gate.open();
    let mut statuses = clients.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 500, 500, 500, 500]);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(server.metric("intentd_engine_failures_total").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn a_failing_engine_is_unready_until_it_recovers() {
    let broken = Arc::new(AtomicBool::new(true));
    let engine_broken = Arc::clone(&broken);
    let fault = move |_: &RaggedBatch| match engine_broken.load(Ordering::Relaxed) {
        true => Err(EngineError::Batch("a test's fault".to_owned())),
        false => Ok(()),
    };
    let flags = ["--engine-failures", "3"];
    let server = TestServer::with_engine(&flags, move |engine| Faulty { engine, fault }).await;
    for failures in 0..3 {
        assert_eq!(
            get(server.address, "/readyz", &[]).await.status,
            200,
            "{failures}"
        );
        assert_eq!(get(server.address, PATH, &[]).await.status, 500);
    }
    let ready = get(server.address, "/readyz", &[]).await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "failing\n"));
    assert_eq!(server.metric("intentd_ready").await, 0.0);
    // An unready server gets no requests, so it has to find out itself.
    broken.store(false, Ordering::Relaxed);
    eventually("it is well again", || !server.classifier.is_unwell()).await;
    assert_eq!(get(server.address, "/readyz", &[]).await.status, 200);
    assert_eq!(get(server.address, PATH, &[]).await.status, 200);
    server.stop().await;
}

/// One of a hundred batches panics under load: every request is answered, and the server keeps running.
#[tokio::test(flavor = "multi_thread")]
async fn random_panics_lose_no_request() {
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&batches);
    let fault = move |_: &RaggedBatch| {
        // A multiplicative hash of the batch's number: random enough, and reproducible.
        let number = counted.fetch_add(1, Ordering::Relaxed) as u64;
        let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        assert!(!hash.is_multiple_of(100), "a test's panic");
        Ok(())
    };
    let server = TestServer::with_engine(&[], move |engine| Faulty { engine, fault }).await;
    let address = server.address;
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        clients.spawn(async move {
            let mut counts = [0_u32; 2];
            for number in 0..100 {
                let body = serde_json::to_string(&vec!["play some jazz"; 1 + number % 3]).unwrap();
                match post_json(address, &body).await.status {
                    200 => counts[0] += 1,
                    500 => counts[1] += 1,
                    other => panic!("{other}"),
                }
            }
            counts
        });
    }
    let counts = clients.join_all().await.into_iter();
    let [answered, failed] = counts.fold([0, 0], |sum, c| [sum[0] + c[0], sum[1] + c[1]]);
    assert_eq!(answered + failed, 1600);
    assert!(answered > 1400, "{answered}");
    for (outcome, count) in [
        ("answered", answered),
        ("refused", failed),
        ("abandoned", 0),
    ] {
        let series = format!("intentd_requests_total{{outcome=\"{outcome}\"}}");
        assert_eq!(server.metric(&series).await, f64::from(count));
    }
    assert_eq!(server.metric("intentd_in_flight").await, 0.0);
    assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
    server.stop().await;
}
