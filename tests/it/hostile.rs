//! Clients that send nonsense, too much, too slowly, or leave.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::http::{Connection, get, head, keep_alive, post, send};
use crate::support::server::{TestServer, eventually};

pub(crate) const PATH: &str = "/predict?query=play+some+jazz";

pub(crate) async fn is_well(address: SocketAddr) {
    assert_eq!(
        get(address, PATH, &["Accept: text/plain"]).await.body,
        "PlayMusic"
    );
}

/// Everything that was taken on has ended, in exactly one way.
pub(crate) async fn adds_up(server: &TestServer) {
    let metrics = server.classifier.metrics().clone();
    eventually("nothing is in flight", || metrics.in_flight.get() == 0).await;
    eventually("nothing waits", || metrics.queue_depth.get() == 0).await;
    let outcome = async |name| {
        let series = format!("intentd_requests_total{{outcome=\"{name}\"}}");
        server.metric(&series).await
    };
    let ended = outcome("answered").await + outcome("refused").await + outcome("abandoned").await;
    assert_eq!(server.metric("intentd_offered_requests_total").await, ended);
}

/// A head that says that a body of `length` bytes follows.
pub(crate) fn head_of_body(length: &str) -> Vec<u8> {
    let length = format!("Content-Length: {length}");
    head(
        "POST",
        "/predict",
        &["Content-Type: application/json", &length],
    )
}

type Case = (&'static str, Vec<u8>, u16);

fn bad_bodies() -> Vec<Case> {
    let json = |body: Vec<u8>| {
        let mut request = head_of_body(&body.len().to_string());
        request.extend_from_slice(&body);
        request
    };
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let many = serde_json::to_vec(&vec!["a"; 100_000]).unwrap();
    vec![
        ("JSON 10,000 levels deep", json(deep), 400),
        (
            "bytes that are not UTF-8",
            json(b"{\"query\": \"\xff\xfe\"}".to_vec()),
            400,
        ),
        ("NUL in JSON", json(b"{\"query\": \"a\0b\"}".to_vec()), 400),
        (
            "an escaped NUL, which is a character",
            json(b"{\"query\": \"a\\u0000b\"}".to_vec()),
            200,
        ),
        (
            "half of a surrogate pair",
            json(b"{\"query\": \"\\ud800\"}".to_vec()),
            400,
        ),
        ("a list of 100,000 texts", json(many), 422),
        ("a body of 1 GB", head_of_body("1073741824"), 413),
        ("a length that is no number", head_of_body("many"), 400),
        (
            "two lengths",
            head(
                "POST",
                "/predict",
                &["Content-Length: 1", "Content-Length: 2"],
            ),
            400,
        ),
    ]
}

fn bad_heads() -> Vec<Case> {
    let long_path = format!("/predict?query={}", "a".repeat(1 << 20));
    let middle_path = format!("/predict?query={}", "a".repeat(60_000));
    let long_header = format!("X-Padding: {}", "a".repeat(1 << 20));
    let many_headers: Vec<String> = (0..200).map(|n| format!("X-{n}: a")).collect();
    let many_headers: Vec<&str> = many_headers.iter().map(String::as_str).collect();
    vec![
        ("a query string of 1 MB", head("GET", &long_path, &[]), 431),
        (
            "a query string of 60 KB, which is cut",
            head("GET", &middle_path, &[]),
            200,
        ),
        (
            "percent-encoded junk",
            head("GET", "/predict?query=%ff%fe", &[]),
            400,
        ),
        (
            "a percent-encoded NUL",
            head("GET", "/predict?query=a%00b", &[]),
            200,
        ),
        ("a header of 1 MB", head("GET", PATH, &[&long_header]), 431),
        ("200 headers", head("GET", PATH, &many_headers), 431),
        (
            "no HTTP at all",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n".to_vec(),
            400,
        ),
        (
            "a method that is none",
            head("PREDICT!", "/predict", &[]),
            405,
        ),
    ]
}

#[tokio::test]
async fn nonsense_gets_its_documented_status() {
    let server = TestServer::start(&[]).await;
    let address = server.address;
    for (what, request, status) in bad_bodies().into_iter().chain(bad_heads()) {
        let answer = send(address, &request).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    is_well(address).await;
    adds_up(&server).await;
    server.stop().await;
}

/// The client is still sending when it is told that this is too much; it hears it all the same.
#[tokio::test]
async fn a_body_refused_while_it_is_sent_does_not_lose_its_answer() {
    let server = TestServer::start(&["--max-body-bytes", "1000"]).await;
    for declared in [true, false] {
        let body = vec![b'a'; 20 << 20];
        let (mut request, body) = if declared {
            (head_of_body(&body.len().to_string()), body)
        } else {
            let head = head("POST", "/predict", &["Transfer-Encoding: chunked"]);
            (
                head,
                [format!("{:x}\r\n", body.len()).into_bytes(), body].concat(),
            )
        };
        request.extend_from_slice(&body);
        // Writes all of it before it reads, as simple clients do.
        let answer = send(server.address, &request).await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error_type"], "PayloadTooLarge");
    }
    adds_up(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn half_a_body_is_given_up_and_half_a_head_is_closed() {
    let flags = [
        "--body-timeout",
        "300ms",
        "--header-timeout",
        "300ms",
        "--idle-timeout",
        "300ms",
    ];
    let server = TestServer::start(&flags).await;
    let address = server.address;
    let mut half = head_of_body("100");
    half.extend_from_slice(b"{\"query\": ");
    let answer = send(address, &half).await;
    assert_eq!(
        (answer.status, answer.json()["error_type"].as_str()),
        (408, Some("Timeout"))
    );
    for start in [&b""[..], b"G", b"GET /predict?query=a HTTP/1.1\r\nHost: te"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut answer = Vec::new();
        assert_eq!(
            stream.read_to_end(&mut answer).await.unwrap_or(0),
            0,
            "{start:?}"
        );
    }
    // A byte now and then does not keep it open.
    let mut drip = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = drip.split();
    let dripping = async {
        while write.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = async {
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
    };
    tokio::select! {
        () = dripping => {}
        () = closed => {}
    }
    // Nor does a connection stay open on which nothing more comes.
    let mut idle = Connection::open(address).await;
    assert_eq!(idle.send(&keep_alive(PATH, "text/plain")).await.status, 200);
    idle.closed().await;
    adds_up(&server).await;
    server.stop().await;
}

/// The time for a head begins with its first byte, also on a connection that has served for long.
#[tokio::test]
async fn half_a_head_on_a_kept_connection_is_closed() {
    let flags = ["--header-timeout", "300ms", "--idle-timeout", "1000s"];
    let server = TestServer::start(&flags).await;
    let mut connection = Connection::open(server.address).await;
    for _ in 0..2 {
        let answer = connection.send(&keep_alive(PATH, "text/plain")).await;
        assert_eq!(answer.status, 200);
    }
    connection.write(b"GET /predict?qu").await;
    connection.closed().await;
    // Nor does a client that was told that the connection ends, and does not close it.
    let mut told = TcpStream::connect(server.address).await.unwrap();
    told.write_all(&head("GET", PATH, &[])).await.unwrap();
    let open = server
        .classifier
        .metrics()
        .connections
        .with_label_values(&["main"]);
    eventually("both are gone", || open.get() == 0).await;
    drop(told);
    server.stop().await;
}

/// An answer of megabytes, a client that takes its time, and a server that is told to end: all of it
/// arrives.
#[tokio::test]
async fn an_answer_that_is_being_sent_is_sent_to_its_end() {
    let mut server = TestServer::start(&["--max-texts", "20000"]).await;
    let list = serde_json::to_string(&vec!["a"; 20_000]).unwrap();
    let mut request = head_of_body(&list.len().to_string());
    request.extend_from_slice(list.as_bytes());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = vec![0; 1000];
    stream.read_exact(&mut answer).await.unwrap();
    server.signal();
    let mut part = vec![0; 1 << 19];
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        match stream.read(&mut part).await.unwrap() {
            0 => break,
            count => answer.extend_from_slice(&part[..count]),
        }
    }
    let answer = crate::support::http::parse(&answer);
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(answer.body.len(), length);
    assert!(
        length > 4 << 20,
        "{length} bytes may fit into the buffers of sockets"
    );
    server.ended().await.expect("the server ends well");
}

#[tokio::test]
async fn who_leaves_leaves_nothing_behind() {
    let server = TestServer::start(&[]).await;
    let address = server.address;
    let list = serde_json::to_string(&vec!["play some jazz"; 256]).unwrap();
    let whole = [head_of_body(&list.len().to_string()), list.into_bytes()].concat();
    let mut clients = JoinSet::new();
    for number in 0..200 {
        // After some part of the request, or of the answer.
        let request = whole[..whole.len() * (number % 21) / 20].to_vec();
        let reads = if number % 21 == 20 { number } else { 0 };
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&request).await.unwrap();
            let mut some = vec![0; reads];
            let _ = stream.read_exact(&mut some).await;
        });
    }
    clients.join_all().await;
    adds_up(&server).await;
    is_well(address).await;
    server.stop().await;
}

/// Answers of a megabyte that nobody reads: the connections end, and others do not notice.
#[tokio::test]
async fn who_does_not_read_is_left() {
    let server = TestServer::start(&["--idle-timeout", "500ms", "--max-texts", "2000"]).await;
    let address = server.address;
    let list = serde_json::to_string(&vec!["a"; 2000]).unwrap();
    let mut request = format!(
        "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{list}",
        list.len()
    )
    .into_bytes();
    // Answers pile up until the sockets' buffers are full.
    request = request.repeat(30);
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let write = stream.write_all(&request);
        let _ = tokio::time::timeout(Duration::from_millis(300), write).await;
        stalled.push(stream);
    }
    is_well(address).await;
    let open = server
        .classifier
        .metrics()
        .connections
        .with_label_values(&["main"]);
    eventually("they are closed", || open.get() == 0).await;
    drop(stalled);
    adds_up(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_read_answers_only_when_they_may() {
    let origin = "Origin: https://shop.example";
    let preflight = head(
        "OPTIONS",
        "/predict",
        &[
            origin,
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type",
        ],
    );
    let closed = TestServer::start(&[]).await;
    let answer = get(closed.address, PATH, &[origin]).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(send(closed.address, &preflight).await.status, 405);
    closed.stop().await;
    let open = TestServer::start(&["--cors-allow-origin", "https://shop.example"]).await;
    let answer = get(open.address, PATH, &[origin]).await;
    let allowed = Some("https://shop.example");
    assert_eq!(answer.header("access-control-allow-origin"), allowed);
    let preflight = send(open.address, &preflight).await;
    assert_eq!(
        (
            preflight.status,
            preflight.header("access-control-allow-origin")
        ),
        (200, allowed)
    );
    let other = get(open.address, PATH, &["Origin: https://evil.example"]).await;
    assert_eq!(other.header("access-control-allow-origin"), None);
    let media = post(open.address, "/predict", "image/png", "x").await;
    assert_eq!(media.status, 415);
    open.stop().await;
}
