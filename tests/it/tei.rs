//! What clients of text-embeddings-inference and of the hub ask, field for field.

use serde_json::{Value, json};

use crate::support::http::{get, post, post_json};
use crate::support::server::TestServer;

#[tokio::test]
async fn answers_carry_teis_headers() {
    let server = TestServer::start(&[]).await;
    let answer = post_json(server.address, r#"{"inputs": "play söme jazz"}"#).await;
    assert_eq!(answer.header("x-compute-type"), Some("cpu"));
    assert_eq!(answer.header("x-compute-characters"), Some("14"));
    for name in [
        "compute-time",
        "total-time",
        "tokenization-time",
        "queue-time",
        "inference-time",
    ] {
        let value = answer.header(&format!("x-{name}")).expect(name);
        assert!(value.parse::<u64>().is_ok(), "{name}: {value}");
    }
    let own = post_json(server.address, r#"{"query": "play"}"#).await;
    assert_eq!(own.header("x-compute-type"), None);
    let series =
        |surface| format!("intentd_requests_total{{outcome=\"answered\",surface=\"{surface}\"}}");
    assert_eq!(server.metric(&series("tei")).await, 1.0);
    assert_eq!(server.metric(&series("predict")).await, 1.0);
    for path in ["/", "/invocations"] {
        let body = r#"{"inputs": [["play some jazz"], ["weather in paris"]]}"#;
        let answer = post(server.address, path, "application/json", body)
            .await
            .json();
        assert_eq!(answer[0][0]["label"], "PlayMusic");
        assert_eq!(answer[1][0]["label"], "GetWeather");
    }
    server.stop().await;
}

/// With `parameters`, a list is a list of texts and the answer always a list of lists.
#[tokio::test]
async fn the_hubs_clients_get_what_they_read() {
    let server = TestServer::start(&[]).await;
    let ask = async |body: Value| post_json(server.address, &body.to_string()).await;
    let answer = ask(json!({"inputs": "play some jazz", "parameters": {"top_k": 2}}))
        .await
        .json();
    assert_eq!(answer[0].as_array().unwrap().len(), 2);
    assert_eq!(answer[0][0]["label"], "PlayMusic");
    let pair = json!({"inputs": ["play some jazz", "weather in paris"], "parameters": {}});
    let answer = ask(pair).await.json();
    assert_eq!(answer[1][0]["label"], "GetWeather");
    let applied = async |function: &str| {
        let parameters = json!({"function_to_apply": function});
        let answer = ask(json!({"inputs": "play some jazz", "parameters": parameters}))
            .await
            .json();
        answer[0][0]["score"].as_f64().unwrap()
    };
    let logit = applied("none").await;
    let sigmoid = 1.0 / (1.0 + (-logit).exp());
    assert!((applied("sigmoid").await - sigmoid).abs() < 1e-6);
    assert!(applied("softmax").await < sigmoid);
    for parameters in [
        json!({"top_k": 0}),
        json!({"function_to_apply": "x"}),
        json!(7),
    ] {
        let answer = ask(json!({"inputs": "a", "parameters": parameters})).await;
        assert_eq!(answer.status, 422);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_model_is_known_and_its_tokens_are() {
    let server = TestServer::start(&["--max-texts", "2"]).await;
    let info = get(server.address, "/info", &[]).await.json();
    assert_eq!(
        info["model_type"]["classifier"]["id2label"]["4"],
        "PlayMusic"
    );
    assert_eq!(info["model_type"]["classifier"]["label2id"]["PlayMusic"], 4);
    assert_eq!(
        (&info["max_client_batch_size"], &info["model_dtype"]),
        (&json!(2), &json!("float32"))
    );
    for path in ["/health", "/ping"] {
        assert_eq!(get(server.address, path, &[]).await.status, 200);
    }
    let tokenize = async |body: Value| {
        post(
            server.address,
            "/tokenize",
            "application/json",
            &body.to_string(),
        )
        .await
    };
    let tokens = tokenize(json!({"inputs": "Play jazzy €"})).await.json();
    let seen = |key: &str| -> Vec<Value> {
        let tokens = tokens[0].as_array().unwrap().iter();
        tokens.map(|token| token[key].clone()).collect()
    };
    let texts = seen("text");
    assert_eq!(
        (&texts[0], texts.last().unwrap()),
        (&json!("[CLS]"), &json!("[SEP]"))
    );
    assert_eq!(texts[1..4], [json!("Play"), json!("jazz"), json!("y")]);
    assert_eq!(
        seen("start")[..4],
        [json!(null), json!(0), json!(5), json!(9)]
    );
    let bare = json!({"inputs": ["play", "jazz"], "add_special_tokens": false});
    let bare = tokenize(bare).await.json();
    assert_eq!(
        (bare[0].as_array().unwrap().len(), &bare[1][0]["stop"]),
        (1, &json!(4))
    );
    for (body, status) in [
        (json!({"inputs": []}), 400),
        (json!({"inputs": ["a", "b", "c"]}), 422),
        (json!({"inputs": 7}), 422),
        (json!({"inputs": "a ".repeat(200_000)}), 422),
        (json!({}), 422),
    ] {
        assert_eq!(tokenize(body).await.status, status);
    }
    server.stop().await;
}
