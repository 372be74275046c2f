//! `/predict` as its users call it: bytes in, bytes out.

use serde_json::json;

use crate::support::http::{Response, get, head, post, post_json, send};
use crate::support::server::TestServer;

#[tokio::test]
async fn curl_gets_the_label_and_nothing_else() {
    let server = TestServer::start(&[]).await;
    let answer = get(server.address, "/predict?query=music", &["Accept: */*"]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(answer.header("content-length"), Some("9"));
    assert_eq!(answer.header("x-intentd-truncated"), None);
    assert_eq!(answer.body, "PlayMusic");
    server.stop().await;
}

#[tokio::test]
async fn the_accept_header_chooses_the_form() {
    let server = TestServer::start(&[]).await;
    let path = "/predict?query=play%20some+jazz";
    let plain = get(server.address, path, &["Accept: text/plain"]).await;
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(plain.body, "PlayMusic");
    let answer = get(server.address, path, &["Accept: application/json"]).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = answer.json();
    assert_eq!(answer["label"], "PlayMusic");
    assert_eq!(answer["score"], answer["scores"][0]["score"]);
    assert_eq!(answer["scores"].as_array().unwrap().len(), 8);
    let sum: f64 = answer["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["score"].as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    assert_eq!(answer["truncated"], false);
    server.stop().await;
}

#[tokio::test]
async fn post_takes_a_text_a_list_and_a_form() {
    let server = TestServer::start(&[]).await;
    let one = post_json(server.address, r#"{"query": "play some jazz"}"#).await;
    assert_eq!(one.status, 200);
    assert_eq!(one.json()["label"], "PlayMusic");
    let list = post_json(
        server.address,
        r#"{"query": ["play some jazz", "weather"]}"#,
    )
    .await
    .json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0], one.json());
    assert_eq!(list[1]["label"], "GetWeather");
    let bare = post_json(server.address, r#"["play some jazz", "weather"]"#)
        .await
        .json();
    assert_eq!(bare, list);
    let form = "application/x-www-form-urlencoded";
    let form = post(server.address, "/predict", form, "query=play+some+jazz").await;
    assert_eq!(form.json(), one.json());
    server.stop().await;
}

/// Some programs write a byte-order mark before JSON, and serializers write members that are not set as `null`.
#[tokio::test]
async fn json_may_have_a_mark_and_members_that_are_null() {
    let server = TestServer::start(&[]).await;
    let event = "application/cloudevents+json";
    let attributes = r#""specversion": "1.0", "id": "1", "source": "/a", "type": "t""#;
    for (path, media, body) in [
        (
            "/predict",
            "application/json",
            r#"{"query": "play some jazz", "truncate": null, "inputs": null}"#,
        ),
        (
            "/predict",
            "application/json",
            r#"{"inputs": "play some jazz", "parameters": {"top_k": null}, "query": null}"#,
        ),
        (
            "/v2/models/intentd/infer",
            "application/json",
            r#"{"id": null, "outputs": null, "parameters": {"timeout": null},
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["play some jazz"], "parameters": null}]}"#,
        ),
        (
            "/predict",
            event,
            &format!(
                r#"{{{attributes}, "data": "play some jazz", "data_base64": null, "subject": null}}"#
            ),
        ),
        (
            "/predict",
            event,
            &format!(r#"{{{attributes}, "data": {{"query": null, "text": "play some jazz"}}}}"#),
        ),
    ] {
        for mark in ["", "\u{feff}"] {
            let answer = post(server.address, path, media, &format!("{mark}{body}")).await;
            assert_eq!(answer.status, 200, "{body} {answer:?}");
            assert!(answer.body.contains("PlayMusic"), "{body} {answer:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn tei_clients_get_tei_answers() {
    let server = TestServer::start(&[]).await;
    let one = post_json(server.address, r#"{"inputs": "play some jazz"}"#)
        .await
        .json();
    assert_eq!(one[0]["label"], "PlayMusic");
    let scores: Vec<f64> = one
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["score"].as_f64().unwrap())
        .collect();
    assert_eq!(scores.len(), 8);
    assert!(scores.is_sorted_by(|a, b| a >= b));
    let batch = post_json(
        server.address,
        r#"{"inputs": [["play some jazz"], ["a", "b"]]}"#,
    )
    .await;
    assert_eq!(batch.json()[0], one);
    assert_eq!(batch.json().as_array().unwrap().len(), 2);
    let pair = post_json(server.address, r#"{"inputs": ["a", "b"]}"#)
        .await
        .json();
    assert_eq!(pair, batch.json()[1], "a flat list of two is a pair");
    let raw = post_json(
        server.address,
        r#"{"inputs": "play some jazz", "raw_scores": true}"#,
    )
    .await;
    assert_eq!(raw.json()[0]["label"], "PlayMusic");
    let sum: f64 = raw
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["score"].as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() > 1e-3, "logits do not sum to one: {sum}");
    server.stop().await;
}

#[tokio::test]
async fn long_texts_are_cut_and_the_answer_says_so_or_refused() {
    let server = TestServer::start(&[]).await;
    let text = "play some jazz ".repeat(300);
    let cut = post_json(server.address, &json!({"query": text}).to_string()).await;
    assert_eq!(cut.status, 200);
    assert_eq!(cut.header("x-intentd-truncated"), Some("true"));
    assert_eq!(cut.json()["truncated"], true);
    let whole = json!({"query": text, "truncate": false}).to_string();
    let refused = post_json(server.address, &whole).await;
    assert_eq!(refused.status, 422);
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("longer than the") && !error.contains("jazz"),
        "{error}"
    );
    let path = format!("/predict?truncate=false&query={}", text.replace(' ', "+"));
    assert_eq!(get(server.address, &path, &[]).await.status, 422);
    server.stop().await;
}

fn assert_refused(answer: &Response, status: u16, error_type: &str, hint: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["error_type"], error_type, "{answer:?}");
    assert!(
        answer.json()["error"].as_str().unwrap().contains(hint),
        "{answer:?}"
    );
}

#[tokio::test]
async fn bad_input_hears_what_to_change() {
    let server = TestServer::start(&["--max-texts", "3"]).await;
    for (path, status, error_type, hint) in [
        ("/predict", 400, "Malformed", "query=music"),
        ("/predict?query=a&query=b", 400, "Malformed", "twice"),
        ("/nothing", 404, "NotFound", "/predict"),
    ] {
        assert_refused(
            &get(server.address, path, &[]).await,
            status,
            error_type,
            hint,
        );
    }
    for (body, status, error_type, hint) in [
        ("{", 400, "Malformed", "not JSON"),
        ("", 400, "Malformed", "for example"),
        (r#"{"query": 1}"#, 422, "Validation", "text"),
        (r#"{"query": []}"#, 400, "Empty", "empty"),
        (
            r#"{"query": ["a", "b", "c", "d"]}"#,
            422,
            "Validation",
            "--max-texts",
        ),
    ] {
        assert_refused(
            &post_json(server.address, body).await,
            status,
            error_type,
            hint,
        );
    }
    let image = post(server.address, "/predict", "image/png", "x").await;
    assert_refused(&image, 415, "UnsupportedMediaType", "application/json");
    let gzip = [
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        "Content-Length: 0",
    ];
    let gzip = send(server.address, &head("POST", "/predict", &gzip)).await;
    assert_refused(&gzip, 415, "UnsupportedMediaType", "gzip");
    let method = send(server.address, &head("DELETE", "/predict", &[])).await;
    assert_refused(&method, 405, "MethodNotAllowed", "GET, HEAD, POST");
    assert_eq!(method.header("allow"), Some("GET, HEAD, POST"));
    server.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_also_when_it_does_not_say_so() {
    let server = TestServer::start(&["--max-body-bytes", "1000"]).await;
    let long = format!(r#"{{"query": "{}"}}"#, "a".repeat(1000));
    let answer = post_json(server.address, &long).await;
    assert_refused(&answer, 413, "PayloadTooLarge", "1000 bytes");
    let mut chunked = head("POST", "/predict", &["Transfer-Encoding: chunked"]);
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 2000, "a".repeat(2000));
    chunked.extend_from_slice(chunk.as_bytes());
    assert_eq!(send(server.address, &chunked).await.status, 413);
    server.stop().await;
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let server = TestServer::start(&[]).await;
    let answer = send(server.address, &head("HEAD", "/predict?query=music", &[])).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("content-length"), Some("9"));
    server.stop().await;
}

#[tokio::test]
async fn every_documented_surface_has_its_series_from_the_first_scrape() {
    let document = std::fs::read_to_string("docs/surfaces.md").unwrap();
    let table = document
        .lines()
        .skip_while(|line| !line.starts_with("| surface | label |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    // `| Title | `label` | …`
    let mut labels: Vec<&str> = table.map(|row| row.split("| `").nth(1).unwrap()).collect();
    labels.push("kafka`");
    assert!(labels.len() > 5);
    let server = TestServer::start(&[]).await;
    let scrape = get(server.admin, "/metrics", &[]).await;
    for label in labels {
        let label = label.split('`').next().unwrap();
        for outcome in ["answered", "refused", "abandoned"] {
            let series =
                format!("intentd_requests_total{{outcome=\"{outcome}\",surface=\"{label}\"}} 0\n");
            assert!(scrape.body.contains(&series), "{series} is missing");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn every_described_operation_is_served() {
    let server = TestServer::start(&[]).await;
    let document = get(server.address, "/openapi.json", &[]).await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model}", "intentd").replace("{version}", "1");
        for (method, _) in item.as_object().unwrap() {
            let answer = match &**method {
                "get" => get(server.address, &path, &[]).await,
                "post" => post(server.address, &path, "application/json", "").await,
                other => panic!("{other} {path}"),
            };
            assert!(![404, 405].contains(&answer.status), "{method} {path}");
        }
    }
    server.stop().await;
}
