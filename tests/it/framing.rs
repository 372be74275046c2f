//! Heads that say too little, too much or something else about who is asked and where the body ends.

use std::net::SocketAddr;

use crate::hostile::{adds_up, is_well};
use crate::support::http::{Response, send};
use crate::support::server::TestServer;

/// A request of these lines, and what comes back until the server closes.
async fn ask(address: SocketAddr, lines: &[&str], body: &str) -> Response {
    let head = lines.join("\r\n");
    send(address, format!("{head}\r\n\r\n{body}").as_bytes()).await
}

fn is_ours(answer: &Response, status: u16, word: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["error_type"], word);
}

/// A request without a host, or with two, is nobody's (RFC 9112, section 3.2).
#[tokio::test]
async fn a_request_names_one_host() {
    let server = TestServer::start(&[]).await;
    for address in [server.address, server.admin] {
        for path in ["/predict?query=a", "/healthz", "/nothing", "/metrics"] {
            let line = format!("GET {path} HTTP/1.1");
            let last = "Connection: close";
            is_ours(&ask(address, &[&line, last], "").await, 400, "Malformed");
            let two = [&*line, "Host: a", "Host: a", last];
            is_ours(&ask(address, &two, "").await, 400, "Malformed");
            let none = [&*line, "Host: a/b", last];
            is_ours(&ask(address, &none, "").await, 400, "Malformed");
        }
        // The connection is not kept: a body that nobody has read may be behind the head.
        let kept = ask(address, &["GET /healthz HTTP/1.1"], "").await;
        is_ours(&kept, 400, "Malformed");
        assert_eq!(kept.header("connection"), Some("close"));
        let old = ask(address, &["GET /healthz HTTP/1.0"], "").await;
        assert_eq!(old.status, 200);
    }
    is_well(server.address).await;
    adds_up(&server).await;
    server.stop().await;
}

/// A body that is packed is not read as if it were not (RFC 9112, section 6.1).
#[tokio::test]
async fn a_body_comes_in_chunks_alone() {
    let server = TestServer::start(&[]).await;
    let body = "12\r\n{\"query\": \"a\"}    \r\n0\r\n\r\n";
    let head = ["POST /predict HTTP/1.1", "Host: a"];
    for codings in [
        &["Transfer-Encoding: gzip, chunked"][..],
        &["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked, chunked"],
    ] {
        let answer = ask(server.address, &[&head, codings].concat(), body).await;
        is_ours(&answer, 501, "NotImplemented");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // These are hyper's, which answers with nothing but the status.
    for codings in [
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, gzip",
    ] {
        let answer = ask(server.address, &[&head[..], &[codings]].concat(), body).await;
        assert_eq!((answer.status, &*answer.body), (400, ""));
    }
    let plain = ["Transfer-Encoding: chunked", "Connection: close"];
    let answer = ask(server.address, &[&head[..], &plain].concat(), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    adds_up(&server).await;
    server.stop().await;
}

/// However many bytes a body is said to have, it is too many or no number.
#[tokio::test]
async fn a_length_that_no_body_has_is_refused() {
    let server = TestServer::start(&[]).await;
    for (length, status) in [
        ("18446744073709551613", 413),
        // What hyper takes for itself: the last two numbers of 64 bits, and what has more.
        ("18446744073709551614", 431),
        ("18446744073709551615", 431),
        ("18446744073709551616", 400),
    ] {
        let length = format!("Content-Length: {length}");
        let head = ["POST /predict HTTP/1.1", "Host: a", &length];
        let answer = ask(server.address, &head, "").await;
        assert_eq!(answer.status, status, "{length}");
        if status == 413 {
            is_ours(&answer, 413, "PayloadTooLarge");
        }
    }
    adds_up(&server).await;
    server.stop().await;
}
