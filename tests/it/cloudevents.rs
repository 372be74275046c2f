//! Events as Knative sends them, and the events that answer.

use serde_json::{Value, json};

use crate::support::http::{Response, send};
use crate::support::server::TestServer;

/// What KafkaSource puts into every request.
const KAFKA: [&str; 7] = [
    "ce-specversion: 1.0",
    "ce-type: dev.knative.kafka.event",
    "ce-source: /apis/v1/namespaces/shop/kafkasources/ai-info#ai-info",
    "ce-subject: partition:0#7",
    "ce-time: 2026-11-25T08:00:00Z",
    "Prefer: reply",
    "Kn-Namespace: shop",
];

async fn deliver(server: &TestServer, path: &str, headers: &[&str], body: &[u8]) -> Response {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let request = [request.as_bytes(), body].concat();
    send(server.address, &request).await
}

/// A record of Kafka's with `more` headers.
async fn record(server: &TestServer, id: &str, more: &[&str], body: &[u8]) -> Response {
    let id = format!("ce-id: {id}");
    let headers: Vec<&str> = KAFKA
        .iter()
        .copied()
        .chain([&*id])
        .chain(more.iter().copied())
        .collect();
    deliver(server, "/", &headers, body).await
}

#[tokio::test]
async fn a_record_is_answered_with_an_event() {
    let server = TestServer::start(&["--event-source", "/intents"]).await;
    let more = [
        "ce-partitionkey: user%207",
        "ce-key: user%207",
        "ce-kafkaheaderfoo: bar",
    ];
    let answer = record(&server, "partition:0/offset:7", &more, b"play some jazz").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("ce-specversion"), Some("1.0"));
    assert_eq!(answer.header("ce-type"), Some("dev.intentd.prediction"));
    assert_eq!(answer.header("ce-source"), Some("/intents"));
    assert_eq!(
        answer.header("ce-causationid"),
        Some("partition:0/offset:7")
    );
    assert_eq!(answer.header("ce-partitionkey"), Some("user%207"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["label"], "PlayMusic");
    let again = record(&server, "partition:0/offset:7", &more, b"play some jazz").await;
    assert_eq!(again.header("ce-id"), answer.header("ce-id"));
    let other = record(&server, "partition:0/offset:8", &more, b"play some jazz").await;
    assert_ne!(other.header("ce-id"), answer.header("ce-id"));
    let series = "intentd_requests_total{outcome=\"answered\",surface=\"cloudevents\"}";
    assert_eq!(server.metric(series).await, 3.0);
    server.stop().await;
}

#[tokio::test]
async fn records_get_the_statuses_that_knative_understands() {
    let server = TestServer::start(&[]).await;
    let long = "jazz ".repeat(200_000);
    let huge = "jazz ".repeat(600_000);
    let json = ["Content-Type: application/json"];
    type Case<'a> = (&'a [&'a str], &'a [u8], u16, Option<&'a str>);
    let cases: [Case<'_>; 10] = [
        (&[], b"play some jazz", 200, None),
        (&json, br#"{"query": "play some jazz"}"#, 200, None),
        (
            &["Content-Type: application/octet-stream"],
            b"play some jazz",
            200,
            None,
        ),
        (&[], long.as_bytes(), 200, None),
        (&[], b"", 400, Some("Empty")),
        (&[], b"\xff\xfe\x00", 400, Some("Malformed")),
        (&json, br#"{"user": 7}"#, 422, Some("Validation")),
        (
            &["Content-Type: image/png"],
            b"x",
            415,
            Some("UnsupportedMediaType"),
        ),
        (
            &["Content-Encoding: gzip"],
            b"x",
            415,
            Some("UnsupportedMediaType"),
        ),
        (&[], huge.as_bytes(), 413, Some("PayloadTooLarge")),
    ];
    for (more, body, status, reason) in cases {
        let answer = record(&server, "partition:0/offset:7", more, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("kne-reason"), reason, "{answer:?}");
        assert_eq!(answer.header("ce-type").is_some(), status == 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_overloaded_server_lets_knative_try_again() {
    let (server, gate) = TestServer::gated(&["--max-concurrency", "1"]).await;
    let first = tokio::spawn({
        let address = server.address;
        async move {
            let request = "GET /predict?query=a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            send(address, request.as_bytes()).await
        }
    });
    crate::support::server::eventually("one is in flight", || {
        server.classifier.metrics().in_flight.get() == 1
    })
    .await;
    let refused = record(&server, "1", &[], b"play").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("kne-reason"), Some("Overloaded"));
    assert!(refused.header("retry-after").is_some());
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    server.stop().await;
}

fn event(id: &str, data: impl Into<Value>) -> Value {
    let data: Value = data.into();
    json!({"specversion": "1.0", "id": id, "source": "/a", "type": "t", "data": data})
}

async fn batch(server: &TestServer, events: &Value) -> Response {
    let headers = ["Content-Type: application/cloudevents-batch+json"];
    deliver(server, "/predict", &headers, events.to_string().as_bytes()).await
}

#[tokio::test]
async fn structured_events_and_batches() {
    let server = TestServer::start(&[]).await;
    let headers = ["Content-Type: application/cloudevents+json; charset=utf-8"];
    let one = event("1", json!({"text": "play some jazz"})).to_string();
    let answer = deliver(&server, "/predict", &headers, one.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("ce-type"), None, "nobody asked for an event");
    assert_eq!(answer.json()["label"], "PlayMusic");

    let events = json!([
        event("1", "play some jazz"),
        {"specversion": "1.0", "id": "2"},
        event("3", json!(["weather in paris", "play some jazz"])),
        event("4", json!({})),
    ]);
    let answer = batch(&server, &events).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answers = answer.json();
    let statuses: Vec<u64> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 400, 200, 422]);
    assert_eq!(answers[0]["id"], "1");
    assert_eq!(answers[0]["prediction"]["label"], "PlayMusic");
    assert_eq!(answers[2]["prediction"][0]["label"], "GetWeather");
    assert_eq!(answers[2]["prediction"][1]["label"], "PlayMusic");

    assert_eq!(batch(&server, &json!([])).await.body, "[]");
    let all_bad = batch(&server, &json!([7, {}])).await;
    assert_eq!(
        (all_bad.status, all_bad.header("kne-reason")),
        (400, Some("Malformed"))
    );
    let avro = ["Content-Type: application/cloudevents+avro"];
    assert_eq!(deliver(&server, "/", &avro, b"x").await.status, 415);
    crate::hostile::adds_up(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_batch_is_admitted_as_one() {
    let server = TestServer::start(&["--max-concurrency", "1", "--max-texts", "32"]).await;
    let events: Value = (0..32).map(|id| event(&id.to_string(), "play")).collect();
    assert_eq!(batch(&server, &events).await.status, 200);
    let events: Value = (0..33).map(|id| event(&id.to_string(), "play")).collect();
    assert_eq!(batch(&server, &events).await.status, 422);
    server.stop().await;
}

#[tokio::test]
async fn the_sinks_address_may_hold_the_text() {
    let server = TestServer::start(&[]).await;
    let mut headers = KAFKA.to_vec();
    headers.push("ce-id: 1");
    let path = "/predict?query=weather+in+paris";
    for body in [&b""[..], b"play some jazz", b"\xff"] {
        let answer = deliver(&server, path, &headers, body).await;
        assert_eq!(answer.json()["label"], "GetWeather");
    }
    // Of a request that is no event as well.
    assert_eq!(
        deliver(&server, path, &[], b"").await.json()["label"],
        "GetWeather"
    );
    assert_eq!(
        deliver(&server, "/predict?query=a&query=b", &headers, b"")
            .await
            .status,
        400
    );
    server.stop().await;
}

#[tokio::test]
async fn a_pointer_says_where_the_text_is() {
    let server = TestServer::start(&["--event-text-pointer", "/message/text"]).await;
    let data = br#"{"query": "weather", "message": {"text": "play some jazz"}}"#;
    assert_eq!(
        record(&server, "1", &[], data).await.json()["label"],
        "PlayMusic"
    );
    assert_eq!(
        record(&server, "1", &[], b"play some jazz").await.status,
        422
    );
    server.stop().await;
}

/// The second delivery is answered without the engine, also after other events; not by another model.
#[tokio::test]
async fn a_redelivered_event_is_answered_from_memory() {
    let server = TestServer::start(&["--events-kept", "100"]).await;
    let computed = async || server.metric("intentd_batch_size_sum").await;
    let first = record(&server, "1", &[], b"play some jazz").await;
    record(&server, "2", &[], b"play some jazz").await;
    let before = computed().await;
    let second = record(&server, "1", &[], b"play some jazz").await;
    assert_eq!(computed().await, before);
    assert_eq!(second.body, first.body);
    let other_text = record(&server, "1", &[], b"weather in paris").await;
    assert_eq!(other_text.json()["label"], "GetWeather");
    assert_eq!(computed().await, before + 1.0);
    let events = json!([event("9", "play"), event("9", "play")]);
    batch(&server, &events).await;
    let before = computed().await;
    batch(&server, &events).await;
    assert_eq!(computed().await, before);
    // What costs nothing is no load: answered, and taken back from what more replicas would have to do.
    let counts = server.classifier.arrivals().counts();
    assert_eq!(counts.discounted, 2);
    crate::hostile::adds_up(&server).await;
    let reloaded = crate::support::http::post(server.admin, "/reload", "text/plain", "").await;
    assert_eq!(reloaded.status, 200);
    let before = computed().await;
    record(&server, "1", &[], b"play some jazz").await;
    assert_eq!(computed().await, before + 1.0);
    server.stop().await;
}
