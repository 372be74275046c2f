//! Traces: a collector gets the spans of requests, and the log says whose they were.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::http::get;
use crate::support::process::Server;
use crate::support::server::{TestServer, eventually};

const PARENT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00";

/// Takes one export and answers it: the request's line and its JSON.
async fn export(collector: &TcpListener) -> (String, Value) {
    let (mut stream, _) = collector.accept().await.unwrap();
    let mut request = String::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        request.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let Some((head, body)) = request.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < length.unwrap().parse().unwrap() {
            continue;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .await
            .unwrap();
        let secret = "authorization: Basic bWU6aHVzaA==";
        assert!(head.lines().any(|line| line == secret), "{head}");
        let line = head.lines().next().unwrap().to_owned();
        return (line, serde_json::from_str(body).unwrap());
    }
}

#[tokio::test]
async fn spans_of_callers_that_keep_theirs_reach_the_collector() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://me:hush@{}", collector.local_addr().unwrap());
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-sample", "0"];
    let server = TestServer::start(&flags).await;
    assert_eq!(
        get(server.address, "/predict?query=zyzzyva", &[PARENT])
            .await
            .status,
        200
    );
    for headers in [&[][..], &[UNSAMPLED]] {
        assert_eq!(
            get(server.address, "/predict?query=a", headers)
                .await
                .status,
            200
        );
    }
    let (line, body) = export(&collector).await;
    assert_eq!(line, "POST /v1/traces HTTP/1.1");
    assert!(!body.to_string().contains("zyzzyva"), "{body}");
    let scope = &body["resourceSpans"][0];
    assert_eq!(
        scope["resource"]["attributes"][0]["value"]["stringValue"],
        "intentd"
    );
    let spans = scope["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 1, "{body}");
    let span = &spans[0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
    assert_eq!(
        (&span["name"], &span["kind"]),
        (&"GET /predict".into(), &2.into())
    );
    assert_eq!(span["attributes"][2]["value"]["intValue"], "200");
    let nanos = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"));
    let exported = server
        .classifier
        .metrics()
        .trace_spans
        .with_label_values(&["exported"]);
    eventually("it is counted", || exported.get() == 1).await;
    server.stop().await;
}

/// The last spans are sent before the process ends, and one that is away does not hold it.
#[tokio::test]
async fn the_end_sends_what_is_left_and_does_not_wait_for_a_collector_that_is_away() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://me:hush@{}", collector.local_addr().unwrap());
    let server = TestServer::start(&["--otlp-endpoint", &endpoint, "--otlp-sample", "1"]).await;
    assert_eq!(
        get(server.address, "/predict?query=a", &[]).await.status,
        200
    );
    let (_, (_, body)) = tokio::join!(server.stop(), export(&collector));
    let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span.get("parentSpanId"), None, "it began its trace");
    drop(collector);
    let server = TestServer::start(&["--otlp-endpoint", &endpoint, "--otlp-sample", "1"]).await;
    assert_eq!(
        get(server.address, "/predict?query=a", &[]).await.status,
        200
    );
    let dropped = server
        .classifier
        .metrics()
        .trace_spans
        .with_label_values(&["dropped"]);
    server.stop().await;
    assert_eq!(dropped.get(), 1);
}

#[tokio::test]
async fn the_log_says_whose_a_request_was() {
    let mut server = Server::start(
        &["--port", "0", "--log", "debug", "--log-format", "json"],
        &[],
    );
    // In JSON, the address is found all the same.
    while get(server.address, "/readyz", &[]).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        get(server.address, "/predict?query=zyzzyva", &[PARENT])
            .await
            .status,
        200
    );
    let (_, log) = server.signal("TERM");
    let line = log
        .lines()
        .find(|line| line.contains("0af7651916cd43dd8448eb211c80319c"));
    let line: Value = serde_json::from_str(line.expect("the trace is in the log")).unwrap();
    assert_eq!(
        (&line["message"], &line["status"]),
        (&"request".into(), &200.into())
    );
    assert!(!log.contains("zyzzyva"), "{log}");
}
