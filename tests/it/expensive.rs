//! Texts that would be expensive if they were looked at: nobody pays for what the model does not see, neither
//! the server nor the neighbours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::hostile::{adds_up, is_well};
use crate::support::http::{post_json, send};
use crate::support::process::Server;
use crate::support::server::TestServer;

/// Two megabytes of each, as JSON, and the status that answers it.
fn bodies() -> Vec<(&'static str, Vec<u8>, u16)> {
    let bytes = 2_000_000;
    let json = |text: String| serde_json::to_vec(&serde_json::json!({ "query": text })).unwrap();
    let of = |piece: &str| json(piece.repeat(bytes / piece.len()));
    let mut broken = json(String::new());
    broken.splice(10..10, std::iter::repeat_n(0xff, bytes));
    let escaped = format!("{{\"query\": \"{}\"}}", "\\u4e2d".repeat(bytes / 6));
    vec![
        ("no blank", of("a!b,é."), 200),
        ("CJK", of("音乐播放天气"), 200),
        ("Hangul", of("음악을틀어줘"), 200),
        ("U+FDFA", of("\u{fdfa}"), 200),
        ("combining marks", of("a\u{301}\u{302}\u{316}\u{327}"), 200),
        ("emoji joiners", of("👩\u{200d}👩\u{200d}👧\u{200d}👦"), 200),
        ("one word", of("a"), 200),
        ("brackets", of("["), 200),
        ("escapes", escaped.into_bytes(), 200),
        ("spaces", of(" "), 200),
        ("zero-width blanks", of("\u{200b}"), 200),
        ("controls", of("\u{7f}"), 200),
        ("JSON depth", b"[".repeat(bytes), 400),
        (
            "many values",
            [b"[1", &b",1".repeat(bytes / 2)[..], b"]"].concat(),
            422,
        ),
        ("invalid UTF-8", broken, 400),
    ]
}

/// The most memory that a process has had, in bytes (proc(5), status).
fn peak(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() * 1024.0
}

#[tokio::test]
async fn megabytes_of_text_take_memory_as_their_bodies_do() {
    let server = Server::start(&["--port", "0", "--slo", "off"], &[]);
    server.ready().await;
    is_well(server.address).await;
    let before = peak(server.child.id());
    for (name, body, status) in bodies() {
        let mut both = JoinSet::new();
        for _ in 0..2 {
            let (address, body) = (server.address, posted(&body));
            both.spawn(async move { send(address, &body).await.status });
        }
        for found in both.join_all().await {
            assert_eq!(found, status, "{name}");
        }
        let grown = (peak(server.child.id()) - before) / 1e6;
        assert!(grown < 100.0, "{name}: {grown:.0} MB more");
    }
    is_well(server.address).await;
}

fn posted(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A list that comes after thirty large texts does not wait for them.
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

/// What nobody would read is no load: a length costs its sender nothing.
#[tokio::test]
async fn what_is_too_large_or_no_request_is_not_asked_for() {
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
