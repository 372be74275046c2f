//! Texts that would be expensive to process completely: what the model does not see costs neither the server nor
//! other requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::hostile::{adds_up, is_well};
use crate::support::http::{self, post_json, send};
use crate::support::long_texts::{Body, bodies};
use crate::support::process::Server;
use crate::support::server::TestServer;

/// Peak resident memory of a process in bytes (proc(5), status).
fn peak(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() * 1024.0
}

#[tokio::test]
async fn large_texts_take_no_more_memory_than_their_bodies() {
    let server = Server::start(&["--port", "0", "--slo", "off"], &[]);
    server.ready().await;
    is_well(server.address).await;
    let before = peak(server.child.id());
    for Body {
        kind,
        bytes,
        status,
    } in bodies(2_000_000)
    {
        let mut both = JoinSet::new();
        for _ in 0..2 {
            let (address, body) = (server.address, posted(&bytes));
            both.spawn(async move { send(address, &body).await.status });
        }
        for found in both.join_all().await {
            assert_eq!(found, status, "{kind}");
        }
        let grown = (peak(server.child.id()) - before) / 1e6;
        assert!(grown < 100.0, "{kind}: {grown:.0} MB more");
    }
    is_well(server.address).await;
}

fn posted(body: &[u8]) -> Vec<u8> {
    http::posted("/predict", "application/json", body)
}

/// A list that arrives after thirty large texts does not wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_short_texts_passes_large_ones() {
    let server = TestServer::start(&[]).await;
    let address = server.address;
    let large = serde_json::json!({ "query": "音乐播放天气".repeat(30_000) }).to_string();
    let list = serde_json::to_string(&vec!["play some jazz"; 120]).unwrap();
    let large: Arc<[u8]> = posted(large.as_bytes()).into();
    let (come, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..30 {
        let (large, come, done) = (Arc::clone(&large), Arc::clone(&come), Arc::clone(&done));
        all.spawn(async move {
            come.fetch_add(1, Ordering::Relaxed);
            assert_eq!(send(address, &large).await.status, 200);
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    while come.load(Ordering::Relaxed) < 30 {
        tokio::task::yield_now().await;
    }
    assert_eq!(post_json(address, &list).await.status, 200);
    let before = done.load(Ordering::Relaxed);
    all.join_all().await;
    assert!(before < 20, "{before} large ones were answered first");
    adds_up(&server).await;
    server.stop().await;
}

/// A body that would not be read is no load: an announced length costs its sender nothing.
#[tokio::test]
async fn bodies_that_are_too_large_or_malformed_are_no_load() {
    let server = TestServer::start(&["--slo", "100ms"]).await;
    let address = server.address;
    let head = crate::hostile::head_of_body("1000000000000");
    assert_eq!(send(address, &head).await.status, 413);
    let broken = format!("[{}", " ".repeat(100_000));
    assert_eq!(post_json(address, &broken).await.status, 400);
    adds_up(&server).await;
    let counts = || server.classifier.arrivals().counts();
    assert_eq!(
        (counts().large, counts().large_read),
        (0, broken.len() as u64)
    );
    let large = serde_json::json!({ "query": "音乐".repeat(10_000) }).to_string();
    assert_eq!(post_json(address, &large).await.status, 200);
    adds_up(&server).await;
    let bytes = large.len() as u64;
    let read = bytes + broken.len() as u64;
    assert_eq!((counts().large, counts().large_read), (bytes, read));
    server.stop().await;
}
