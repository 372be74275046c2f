//! Responses to requests whose bodies are not read: clients receive them, and nothing waits for ever.

use std::convert::Infallible;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, RST_STREAM, connect, frame,
    next_frame,
};
use crate::support::http::{Connection, keep_alive};
use crate::support::server::{TestServer, eventually};

/// The header block of a POST (RFC 7541, appendix A).
fn post(path: &str, content_type: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let fields = [
        vec![0x83, 0x86, 0x04],
        text(path),
        b"\x01\x04test\x0f\x10".to_vec(),
        text(content_type),
    ];
    fields.concat()
}

/// Sends the start of a request whose body does not end.
async fn begin(server: &TestServer, path: &str, content_type: &str) -> TcpStream {
    let mut stream = connect(server.address).await;
    let head = frame(HEADERS, END_HEADERS, 1, &post(path, content_type));
    let part = frame(DATA, 0, 1, &[b' '; 1000]);
    stream.write_all(&[head, part].concat()).await.unwrap();
    stream
}

/// The frames of the stream up to the one for which `is_last` holds.
async fn until(stream: &mut TcpStream, is_last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut all = Vec::new();
    loop {
        let frame = next_frame(stream).await.expect("the connection is open");
        let found = is_last(&frame);
        all.push(frame);
        if found {
            return all;
        }
    }
}

fn is_end(frame: &Frame) -> bool {
    matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM > 0
}

fn is_reset(frame: &Frame) -> bool {
    frame.kind == RST_STREAM
}

/// All frames that the server sends before it answers a ping.
async fn rest(stream: &mut TcpStream) -> Vec<Frame> {
    stream.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    let is_pong = |frame: &Frame| frame.kind == PING && frame.payload == [7; 8];
    until(stream, is_pong).await
}

/// The response comes at once. It ends when the body has ended, not before: that would be a reset.
#[tokio::test]
async fn a_refused_client_may_finish_its_body() {
    let server = TestServer::start(&[]).await;
    let mut stream = begin(&server, "/nothing", "text/plain").await;
    let mut all = until(&mut stream, |frame| frame.kind == DATA).await;
    assert!(String::from_utf8_lossy(&all.last().unwrap().payload).contains("NotFound"));
    // As much as a client may send before it has read the server's settings.
    for _ in 0..12 {
        let more = frame(DATA, 0, 1, &[b' '; 5000]);
        stream.write_all(&more).await.unwrap();
    }
    all.extend(rest(&mut stream).await);
    assert!(!all.iter().any(is_end), "{all:?}");
    let last = frame(DATA, END_STREAM, 1, b" ");
    stream.write_all(&last).await.unwrap();
    all.extend(until(&mut stream, is_end).await);
    all.extend(rest(&mut stream).await);
    assert!(!all.iter().any(is_reset), "{all:?}");
    server.stop().await;
}

/// A gRPC refusal is only a head, so the head waits for the end of the body.
#[tokio::test]
async fn a_refused_call_may_finish_its_body() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "secret").unwrap();
    let server = TestServer::start(&["--api-keys", keys.to_str().unwrap()]).await;
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let mut stream = begin(&server, path, "application/grpc").await;
    let mut all = rest(&mut stream).await;
    let last = frame(DATA, END_STREAM, 1, b" ");
    stream.write_all(&last).await.unwrap();
    all.extend(until(&mut stream, is_end).await);
    all.extend(rest(&mut stream).await);
    let heads = all
        .iter()
        .filter(|frame| matches!(frame.kind, HEADERS | CONTINUATION));
    assert_eq!(heads.count(), 1, "nothing but trailers");
    assert!(
        !all.iter()
            .any(|frame| frame.kind == DATA || is_reset(frame)),
        "{all:?}"
    );
    server.stop().await;
}

/// The stream of a client that stops sending, or never stops, is reset.
#[tokio::test]
async fn a_body_that_does_not_end_is_abandoned() {
    let server = TestServer::start(&[]).await;
    let mut silent = begin(&server, "/nothing", "text/plain").await;
    until(&mut silent, is_reset).await;
    drop(silent);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let driver = tokio::spawn(connection);
    let pieces = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(vec![b' '; 10_000]));
    let endless = hyper::Request::post("http://test/nothing").body(Body::from_stream(pieces));
    let answer = sender.send_request(endless.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 404);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("NotFound"));
    // The connection still works.
    let again = hyper::Request::get("http://test/healthz").body(Body::empty());
    assert_eq!(
        sender.send_request(again.unwrap()).await.unwrap().status(),
        200
    );
    drop(sender);
    driver.await.unwrap().unwrap();
    let metrics = server.classifier.metrics().clone();
    let open = metrics.connections.with_label_values(&["main"]);
    eventually("both are gone", || open.get() == 0).await;
    server.stop().await;
}

/// On HTTP/1, a client that is not told about the end of its connection would lose its next request.
#[tokio::test]
async fn a_connection_that_will_close_says_so() {
    let server = TestServer::start(&[]).await;
    let head = |length: usize, more: &str| {
        let head = "POST /nothing HTTP/1.1\r\nHost: test\r\n";
        format!("{head}Content-Length: {length}\r\n{more}\r\n").into_bytes()
    };
    let get = keep_alive("/predict?query=music", "*/*");
    let mut connection = Connection::open(server.address).await;
    let chunked = |bytes: usize| {
        let head = "POST /nothing HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = " ".repeat(bytes);
        format!("{head}{bytes:x}\r\n{body}\r\n0\r\n\r\n").into_bytes()
    };
    // A short body is read.
    let whole = [head(60_000, ""), vec![b' '; 60_000]].concat();
    let read = String::from_utf8(chunked(7)).unwrap();
    let read = read
        .replace("/nothing", "/predict")
        .replace("\r\n       \r\n", "\r\nquery=a\r\n");
    let read = read.replace(
        "Host: test",
        "Host: test\r\nContent-Type: application/x-www-form-urlencoded",
    );
    let answer = connection.send(read.as_bytes()).await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    for short in [whole, chunked(60_000)] {
        let answer = connection.send(&short).await;
        assert_eq!((answer.status, answer.header("connection")), (404, None));
        assert_eq!(connection.send(&get).await.status, 200);
    }
    // The server does not wait for a long body, a missing one, or one that waits for 100 Continue.
    for (request, what) in [
        ([head(1_000_000, ""), vec![b' '; 1000]].concat(), "long"),
        (chunked(100_000), "chunked"),
        (head(6, ""), "silent"),
        (head(6, "Expect: 100-continue\r\n"), "expecting"),
    ] {
        let mut connection = Connection::open(server.address).await;
        let answer = connection.send(&request).await;
        let close = answer.header("connection");
        assert_eq!((answer.status, close), (404, Some("close")), "{what}");
    }
    server.stop().await;
}
