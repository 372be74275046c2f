//! The Open Inference Protocol over REST and gRPC, and gRPC's own services.

use std::time::{Duration, Instant};

use intentd::api::inference_proto as proto;
use proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::infer_parameter::ParameterChoice;
use proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::http::{Response, get, post, send};
use crate::support::server::TestServer;

const INFER: &str = "/v2/models/intentd/infer";

async fn infer(server: &TestServer, body: &Value) -> Response {
    post(server.address, INFER, "application/json", &body.to_string()).await
}

fn input(texts: &[&str]) -> Value {
    json!({"name": "text", "datatype": "BYTES", "shape": [texts.len()], "data": texts})
}

#[tokio::test]
async fn a_server_says_what_it_is() {
    let server = TestServer::start(&["--model-name", "intents"]).await;
    let read = async |path: &str| {
        let answer = get(server.address, path, &[]).await;
        (answer.status, answer.json())
    };
    assert_eq!(read("/v2").await.1["name"], "intentd");
    assert_eq!(read("/v2/health/live").await, (200, json!({"live": true})));
    assert_eq!(
        read("/v2/health/ready").await,
        (200, json!({"ready": true}))
    );
    for path in ["/v2/models/intents", "/v2/models/intents/versions/1"] {
        let (status, model) = read(path).await;
        assert_eq!((status, &model["name"]), (200, &json!("intents")));
        assert_eq!(model["outputs"][2]["shape"], json!([-1, 8]));
        assert_eq!(read(&format!("{path}/ready")).await.0, 200);
    }
    for path in ["/v2/models/intentd", "/v2/models/intents/versions/2/ready"] {
        let (status, answer) = read(path).await;
        assert_eq!(status, 404);
        assert!(answer["error"].as_str().unwrap().contains("\"intents\""));
    }
    server.stop().await;
}

#[tokio::test]
async fn texts_become_tensors() {
    let server = TestServer::start(&[]).await;
    let body = json!({"id": "42", "inputs": [input(&["play some jazz", "weather in paris"])]});
    let answer = infer(&server, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(
        (&answer["id"], &answer["model_name"]),
        (&json!("42"), &json!("intentd"))
    );
    let outputs = answer["outputs"].as_array().unwrap();
    let names: Vec<&str> = outputs
        .iter()
        .map(|output| output["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["label", "score", "scores", "logits"]);
    assert_eq!(outputs[0]["data"], json!(["PlayMusic", "GetWeather"]));
    assert_eq!(outputs[2]["shape"], json!([2, 8]));
    assert_eq!(outputs[3]["data"].as_array().unwrap().len(), 16);
    let best = outputs[2]["data"][4].as_f64().unwrap();
    assert_eq!(
        outputs[1]["data"][0].as_f64().unwrap(),
        best,
        "row 4 is PlayMusic"
    );

    // Nested data, another name, and classes as strings.
    let body = json!({
        "inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": [["play some jazz"]]}],
        "outputs": [{"name": "scores", "parameters": {"classification": 2}}, {"name": "label"}],
    });
    let answer = infer(&server, &body).await.json();
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 2]));
    let first = answer["outputs"][0]["data"][0].as_str().unwrap();
    assert!(
        first.starts_with("0.9") && first.ends_with(":4:PlayMusic"),
        "{first}"
    );
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn tensors_may_be_binary() {
    let server = TestServer::start(&[]).await;
    let text = b"play some jazz";
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let raw = [&length[..], text].concat();
    let json = json!({
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1],
            "parameters": {"binary_data_size": raw.len()}}],
        "outputs": [{"name": "label", "parameters": {"binary_data": true}}],
    })
    .to_string();
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {}\r\n\r\n",
        json.len() + raw.len(),
        json.len()
    );
    let request = [head.as_bytes(), json.as_bytes(), &raw].concat();
    let answer = send(server.address, &request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let length: usize = answer
        .header("inference-header-content-length")
        .unwrap()
        .parse()
        .unwrap();
    let (json, raw) = answer.body.split_at(length);
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(
        json["outputs"][0]["parameters"],
        json!({"binary_data_size": 13})
    );
    assert_eq!(raw, "\u{9}\0\0\0PlayMusic");
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_told_and_the_text_is_not() {
    let server = TestServer::start(&["--max-texts", "2"]).await;
    let tensor = |change: Value| {
        let mut tensor = input(&["secret"]);
        for (key, value) in change.as_object().unwrap() {
            tensor[key] = value.clone();
        }
        json!({"inputs": [tensor]})
    };
    let with = |key: &str, value: Value| {
        let mut body = json!({"inputs": [input(&["secret"])]});
        body[key] = value;
        body
    };
    for (body, status) in [
        (tensor(json!({"shape": [2]})), 422),
        (tensor(json!({"shape": [-1]})), 422),
        (tensor(json!({"shape": []})), 422),
        (tensor(json!({"shape": [i64::MAX, 4]})), 422),
        (tensor(json!({"datatype": "FP32"})), 422),
        (tensor(json!({"data": [7]})), 422),
        (tensor(json!({"parameters": {"binary_data_size": 3}})), 422),
        (with("outputs", json!([{"name": "secret"}])), 422),
        (
            with(
                "outputs",
                json!([{"name": "label", "parameters": {"classification": 1}}]),
            ),
            422,
        ),
        (
            with(
                "outputs",
                json!([{"name": "scores", "parameters": {"classification": 0}}]),
            ),
            422,
        ),
        (
            with("outputs", json!([{"name": "label"}, {"name": "label"}])),
            422,
        ),
        (
            with("outputs", json!(vec![json!({"name": "logits"}); 100_000])),
            422,
        ),
        (with("id", json!(7)), 422),
        (with("parameters", json!({"truncate": "secret"})), 422),
        (with("inputs", json!([])), 422),
        (with("inputs", json!([input(&["a"]), input(&["b"])])), 422),
        (with("inputs", json!([input(&[])])), 400),
        (with("inputs", json!([input(&["a", "b", "c"])])), 422),
        (json!(["secret"]), 422),
    ] {
        let answer = infer(&server, &body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(!answer.body.contains("secret"), "{answer:?}");
    }
    crate::hostile::adds_up(&server).await;
    server.stop().await;
}

async fn channel(server: &TestServer) -> Channel {
    let uri = format!("http://{}", server.address);
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

fn message(texts: &[&str]) -> proto::ModelInferRequest {
    let contents = proto::InferTensorContents {
        bytes_contents: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        ..Default::default()
    };
    proto::ModelInferRequest {
        model_name: "intentd".to_owned(),
        id: "42".to_owned(),
        inputs: vec![InferInputTensor {
            name: "text".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![i64::try_from(texts.len()).unwrap()],
            contents: Some(contents),
            ..Default::default()
        }],
        outputs: ["label", "scores"]
            .map(|name| InferRequestedOutputTensor {
                name: name.to_owned(),
                ..Default::default()
            })
            .into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn grpc_answers_on_the_same_port() {
    let server = TestServer::start(&["--orca", "always"]).await;
    let mut client = GrpcInferenceServiceClient::new(channel(&server).await);
    let answer = client
        .model_infer(message(&["play some jazz", "weather in paris"]))
        .await
        .unwrap();
    let message_of = answer.get_ref();
    assert_eq!((&*message_of.id, &*message_of.model_version), ("42", "1"));
    let contents = |place: usize| message_of.outputs[place].contents.as_ref().unwrap();
    assert_eq!(
        contents(0).bytes_contents,
        [&b"PlayMusic"[..], b"GetWeather"]
    );
    assert_eq!(contents(1).fp32_contents.len(), 16);

    let mut raw = message(&["play"]);
    raw.inputs[0].contents = None;
    raw.raw_input_contents = vec![b"\x04\0\0\0play".to_vec()];
    let answer = client.model_infer(raw).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents[0], b"\x09\0\0\0PlayMusic");
    assert!(answer.outputs[0].contents.is_none());

    let ready = client
        .server_ready(proto::ServerReadyRequest {})
        .await
        .unwrap();
    assert!(ready.into_inner().ready);
    let asked = proto::ModelMetadataRequest {
        name: "intentd".to_owned(),
        ..Default::default()
    };
    let metadata = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!(metadata.outputs[2].shape, [-1, 8]);
    let series = "intentd_requests_total{outcome=\"answered\",surface=\"grpc\"}";
    assert_eq!(server.metric(series).await, 2.0);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn grpc_has_its_own_words_for_refusals() {
    let flags = ["--max-concurrency", "1", "--max-body-bytes", "1000"];
    let (server, gate) = TestServer::gated(&flags).await;
    let client = GrpcInferenceServiceClient::new(channel(&server).await);
    let code = async |message: Request<proto::ModelInferRequest>| {
        let status = client.clone().model_infer(message).await.unwrap_err();
        let pushback = status.metadata().get("grpc-retry-pushback-ms").is_some();
        (status.code(), pushback)
    };
    let mut unknown = message(&["a"]);
    unknown.model_name = "x".to_owned();
    assert_eq!(code(Request::new(unknown)).await, (Code::NotFound, false));
    let long = "a ".repeat(1000);
    assert_eq!(
        code(Request::new(message(&[&long]))).await,
        (Code::OutOfRange, false)
    );
    let mut wrong = message(&["a"]);
    wrong.inputs[0].shape = vec![7];
    assert_eq!(
        code(Request::new(wrong)).await,
        (Code::InvalidArgument, false)
    );
    // Not by gRPC's own header: this client would end the call before the server does.
    let mut hurried = message(&["a"]);
    let timeout = ParameterChoice::Int64Param(30_000);
    let timeout = proto::InferParameter {
        parameter_choice: Some(timeout),
    };
    hurried.parameters.insert("timeout".to_owned(), timeout);
    let hurried = Request::new(hurried);
    assert_eq!(code(hurried).await.0, Code::DeadlineExceeded);
    let mut first = client.clone();
    let first = tokio::spawn(async move { first.model_infer(message(&["a"])).await });
    crate::support::server::eventually("one is in flight", || {
        server.classifier.metrics().in_flight.get() == 1
    })
    .await;
    assert_eq!(
        code(Request::new(message(&["a"]))).await,
        (Code::ResourceExhausted, true)
    );
    gate.open();
    assert!(first.await.unwrap().is_ok());
    crate::hostile::adds_up(&server).await;
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn grpc_wants_the_key_too_and_probes_do_not() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "key-one\n").unwrap();
    let server = TestServer::start(&["--api-keys", keys.path().to_str().unwrap()]).await;
    let channel = channel(&server).await;
    let mut client = GrpcInferenceServiceClient::new(channel.clone());
    let status = client.model_infer(message(&["a"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut with_key = Request::new(message(&["a"]));
    with_key
        .metadata_mut()
        .insert("authorization", "Bearer key-one".parse().unwrap());
    assert!(client.model_infer(with_key).await.is_ok());
    let mut health = HealthClient::new(channel);
    let check = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "inference.GRPCInferenceService"] {
        let answer = health.check(check(service)).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    assert_eq!(
        health.check(check("x")).await.unwrap_err().code(),
        Code::NotFound
    );
    drop((client, health));
    server.stop().await;
}

/// Who watches learns that the server is about to end, and does not keep it from that.
#[tokio::test]
async fn a_watcher_hears_the_end() {
    let mut server = TestServer::start(&["--lame-duck", "1s"]).await;
    let mut health = HealthClient::new(channel(&server).await);
    let watching = health.watch(HealthCheckRequest::default());
    let mut watched = watching.await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    let since = Instant::now();
    server.signal();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 2);
    assert_eq!(watched.message().await.unwrap(), None);
    let lasted = since.elapsed();
    assert!(
        lasted >= Duration::from_secs(1),
        "ended before the ports closed"
    );
    drop((watched, health));
    server.ended().await.expect("the server ends well");
}
