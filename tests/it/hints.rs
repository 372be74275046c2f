//! Hints for autoscalers and load balancers.

use std::net::SocketAddr;
use std::time::Duration;

use intentd::engine::RaggedBatch;
use tokio::task::JoinSet;

use crate::support::engine::Faulty;
use crate::support::http::{get, post};
use crate::support::process::{run, stdout};
use crate::support::scaler::{Scaler, demand, is_active};
use crate::support::server::{TestServer, eventually};

/// The value at this path of `/autoscaling`, read with gjson as KEDA does.
async fn hint(admin: SocketAddr, path: &str) -> f64 {
    let answer = get(admin, "/autoscaling", &[]).await;
    assert_eq!(answer.status, 200);
    let value = gjson::get(&answer.body, path);
    assert!(value.exists(), "{path} is not in\n{}", answer.body);
    assert!(value.kind() == gjson::Kind::Number, "{path}");
    value.f64()
}

/// Waits until `holds` is true for a hint. The hints are updated twice a second.
async fn until(server: &TestServer, path: &str, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..600 {
        let value = hint(server.admin, path).await;
        if holds(value) {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{path} never became what was expected");
}

/// All paths that scalers read exist and are numbers, before the first request.
#[tokio::test(flavor = "multi_thread")]
async fn every_hint_is_a_number_from_the_start() {
    let server = TestServer::start(&["--slo", "100ms"]).await;
    until(&server, "capacity_rps", |rate| rate > 0.0).await;
    for path in [
        "demand_replicas",
        "demand_percent",
        "utilization",
        "offered_rps",
        "accepted_rps",
        "refused_rps",
        "max_rps",
        "target_utilization",
        "target_concurrency",
        "in_flight",
        "queue_depth",
        "oldest_wait_seconds",
        "slo_feasible",
        "p99_seconds",
        "confidence",
        "startup_seconds",
        "calibration.tau0_seconds",
        "calibration.alpha_seconds",
        "calibration.kappa",
        "recommended.knative.target",
        "recommended.kafka.lag_threshold",
    ] {
        assert!(hint(server.admin, path).await.is_finite(), "{path}");
    }
    assert_eq!(hint(server.admin, "schema_version").await, 1.0);
    assert_eq!(hint(server.admin, "demand_replicas").await, 0.0);
    assert_eq!(hint(server.admin, "slo_seconds").await, 0.1);
    assert!(hint(server.admin, "calibration.samples").await >= 2.0);
    let demand = server.metric("intentd_autoscaling_demand_replicas").await;
    assert_eq!(demand, 0.0);
    let capacity = "intentd_autoscaling_capacity_requests_per_second";
    assert!(server.metric(capacity).await > 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_contains_the_numbers_of_the_hints() {
    let server = TestServer::start(&["--slo", "100ms"]).await;
    until(&server, "capacity_rps", |rate| rate > 0.0).await;
    let answer = get(server.admin, "/autoscaling/manifest", &[]).await;
    assert_eq!(answer.header("content-type"), Some("application/yaml"));
    let target = hint(server.admin, "recommended.knative.target").await;
    let line = format!("autoscaling.knative.dev/target: \"{target}\"");
    assert!(answer.body.contains(&line), "{line} in\n{}", answer.body);
    assert!(answer.body.contains("valueLocation: demand_replicas"));
    server.stop().await;
}

/// Refused requests are demand like answered ones. Client errors are not.
#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_are_demand_and_client_errors_are_not() {
    let flags = ["--max-concurrency", "2"];
    let (server, gate) = TestServer::gated(&flags).await;
    let address = server.address;
    for _ in 0..50 {
        let answer = get(address, "/predict?wrong=1", &[]).await;
        assert_eq!(answer.status, 400);
    }
    let ask = |number: usize| async move {
        let path = format!("/predict?query=play+song+{number}");
        get(address, &path, &[]).await
    };
    // The engine takes the first request, and the second waits for it.
    let mut waiting = vec![tokio::spawn(ask(0))];
    eventually("the engine has the first", || {
        let seen = server.classifier.observe().unwrap();
        (seen.in_flight, seen.waiting_texts) == (1, 0)
    })
    .await;
    waiting.push(tokio::spawn(ask(1)));
    until(&server, "in_flight", |count| count == 2.0).await;
    until(&server, "oldest_wait_seconds", |wait| wait > 0.0).await;
    let before = server.classifier.arrivals().counts();
    for number in 0..40 {
        assert_eq!(ask(number).await.status, 429);
    }
    let after = server.classifier.arrivals().counts();
    assert_eq!(after.offered - before.offered, 40);
    assert_eq!(after.shed - before.shed, 40);
    assert_eq!(after.discounted, 50);
    assert!(until(&server, "demand_replicas", |demand| demand > 0.0).await > 0.0);
    assert!(until(&server, "refused_rps", |rate| rate > 0.0).await > 0.0);
    gate.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    server.stop().await;
}

/// A retried CloudEvent, as a KafkaSource sends it, is no new demand.
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_event_counts_once() {
    let (server, gate) = TestServer::gated(&["--max-concurrency", "1"]).await;
    let address = server.address;
    let first = tokio::spawn(async move { get(address, "/predict?query=a", &[]).await });
    until(&server, "in_flight", |count| count == 1.0).await;
    let before = server.classifier.arrivals().counts();
    for _ in 0..5 {
        let event = ["ce-specversion: 1.0", "ce-source: /topic", "ce-id: 7"];
        let answer = get(address, "/predict?query=b", &event).await;
        assert_eq!(answer.status, 429);
    }
    let after = server.classifier.arrivals().counts();
    assert_eq!(after.offered - before.offered, 1);
    assert_eq!(after.shed - before.shed, 5);
    assert_eq!(server.metric("intentd_offered_requests_total").await, 6.0);
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_carry_a_load_report_if_requested() {
    const HEADER: &str = "endpoint-load-metrics";
    let asks = |form: &'static str| match form {
        "" => vec![],
        "json" => vec!["endpoint-load-metrics-format: json"],
        "text" => vec!["endpoint-load-metrics-format: TEXT"],
        "bin" => vec!["endpoint-load-metrics-format: bin"],
        _ => vec!["endpoint-load-metrics-format: xml"],
    };
    let expected = [
        ("off", [None, None, None, None, None]),
        (
            "on-request",
            [None, Some("JSON {"), Some("TEXT "), Some("BIN"), None],
        ),
        (
            "always",
            [
                Some("JSON {"),
                Some("JSON {"),
                Some("TEXT "),
                Some("BIN"),
                None,
            ],
        ),
    ];
    for (mode, forms) in expected {
        let server = TestServer::start(&["--orca", mode]).await;
        for (form, expected) in ["", "json", "text", "bin", "xml"].into_iter().zip(forms) {
            let answer = get(server.address, "/predict?query=music", &asks(form)).await;
            assert_eq!(answer.status, 200);
            let found = answer.header(HEADER);
            assert_eq!(found.is_some(), expected.is_some(), "{mode}, {form}");
            if let (Some(found), Some(expected)) = (found, expected) {
                assert!(found.starts_with(expected), "{found}");
            }
        }
        // Refusals too, because a balancer has to learn of them.
        let answer = get(server.address, "/predict", &asks("json")).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header(HEADER).is_some(), mode != "off");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_are_on_the_main_port_if_configured() {
    let server = TestServer::start(&[]).await;
    assert_eq!(get(server.address, "/autoscaling", &[]).await.status, 404);
    assert_eq!(get(server.address, "/metrics", &[]).await.status, 404);
    server.stop().await;
    let server = TestServer::start(&["--hints-on-main-port", "--triton-metrics"]).await;
    assert_eq!(get(server.address, "/autoscaling", &[]).await.status, 200);
    let metrics = get(server.address, "/metrics", &[]).await;
    let pending = "nv_inference_pending_request_count{model=\"intentd\",version=\"1\"} 0";
    assert!(metrics.body.lines().any(|line| line == pending));
    let posted = post(server.address, "/autoscaling", "text/plain", "").await;
    assert_eq!(posted.status, 405);
    assert_eq!(posted.header("allow"), Some("GET, HEAD"));
    server.stop().await;
}

/// A server without measurements publishes no invented capacity.
#[tokio::test(flavor = "multi_thread")]
async fn without_calibration_the_first_batch_gives_the_capacity() {
    let server = TestServer::start(&["--calibration", "off"]).await;
    until(&server, "ready", |ready| ready == 1.0).await;
    assert_eq!(hint(server.admin, "capacity_rps").await, 0.0);
    assert_eq!(hint(server.admin, "calibration.samples").await, 0.0);
    assert_eq!(
        get(server.address, "/predict?query=music", &[])
            .await
            .status,
        200
    );
    let samples = until(&server, "calibration.samples", |samples| samples > 0.0);
    assert_eq!(samples.await, 1.0);
    until(&server, "capacity_rps", |rate| rate > 0.0).await;
    server.stop().await;
}

/// The scaler adds up the demand of real servers: two with load, one idle.
#[tokio::test(flavor = "multi_thread")]
async fn the_scaler_reads_what_servers_publish() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(TestServer::start(&["--slo", "100ms"]).await);
    }
    let places: Vec<String> = servers.iter().map(|s| s.admin.to_string()).collect();
    let scaler = Scaler::start(&["--replicas", &places.join(",")]);
    let mut client = scaler.client().await;
    assert_eq!(demand(&mut client, &[]).await.unwrap(), (0.0, 0));
    assert!(!is_active(&mut client, &[]).await.unwrap());
    for server in &servers[..2] {
        for number in 0..20 {
            let path = format!("/predict?query=play+song+{number}");
            assert_eq!(get(server.address, &path, &[]).await.status, 200);
        }
        until(server, "demand_replicas", |demand| demand > 0.0).await;
    }
    let fresh = "intentd_scaler_replicas{state=\"fresh\"}";
    assert_eq!(scaler.metric(fresh).await, 3.0);
    for _ in 0..600 {
        let (sum, whole) = demand(&mut client, &[]).await.unwrap();
        if sum > 0.0 {
            assert!(sum < 1.0 && whole == 1, "{sum}, {whole}");
            assert!(is_active(&mut client, &[]).await.unwrap());
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for server in servers {
        server.stop().await;
    }
}

/// The model counts on batches, and knows nothing of a limit to one request at a time. What is refused shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_for_seconds_asks_for_help_and_says_why() {
    let fault = |_: &RaggedBatch| {
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    };
    let flags = ["--slo", "1s", "--max-concurrency", "1"];
    let server = TestServer::with_engine(&flags, move |engine| Faulty { engine, fault }).await;
    let address = server.address;
    assert_eq!(get(address, "/predict?query=a", &[]).await.status, 200);
    let modelled = until(&server, "capacity_rps", |rate| rate > 0.0).await;
    assert!(modelled > 100.0, "{modelled}");
    let ask = |number: usize| async move {
        loop {
            get(address, &format!("/predict?query=song+{number}"), &[]).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut clients: JoinSet<()> = (0..4).map(ask).collect();
    // What it answers, about 30 a second, and no longer what its model said. Other tests in this process count as the
    // host's, so the model may have come to that itself.
    until(&server, "capacity_rps", |rate| rate < 40.0).await;
    assert!(hint(server.admin, "demand_replicas").await > 1.0);
    assert_eq!(hint(server.admin, "slo_feasible").await, 1.0);
    let admin = server.admin.port().to_string();
    let explain = move || run(&["explain", "--admin-port", &admin], "");
    let output = tokio::task::spawn_blocking(explain).await.unwrap();
    let text = stdout(&output);
    assert!(text.contains("are refused"), "{text}");
    assert!(
        text.lines().last().unwrap().starts_with("Demand "),
        "{text}"
    );
    clients.shutdown().await;
    server.stop().await;
}
