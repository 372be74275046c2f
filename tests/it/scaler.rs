//! `intentd scaler` as KEDA sees it: its calls over sockets, with replicas that come, go and fail.

use std::net::Ipv4Addr;
use std::process::Command;

use intentd::scaler::proto::GetMetricsRequest;
use tonic::Code;

use crate::support::http;
use crate::support::process::{failure, intentd, run};
use crate::support::scaler::{Answering, Dns, Says, Scaler, demand, is_active, object, until};

#[tokio::test]
async fn the_demand_is_the_sum_over_the_replicas() {
    let replicas = [
        Answering::replica(1.25).await,
        Answering::replica(0.5).await,
        Answering::replica(2.0).await,
    ];
    let places = replicas.each_ref().map(Answering::place).join(",");
    let scaler = Scaler::start(&["--replicas", &places]);
    let mut client = scaler.client().await;
    let spec = client
        .get_metric_spec(object(&[]))
        .await
        .unwrap()
        .into_inner();
    let [spec] = &spec.metric_specs[..] else {
        panic!("one metric: {spec:?}");
    };
    assert_eq!(spec.metric_name, "demand");
    assert_eq!((spec.target_size_float, spec.target_size), (1.0, 1));
    assert_eq!(demand(&mut client, &[]).await.unwrap(), (3.75, 4));
    assert!(is_active(&mut client, &[]).await.unwrap());
    let target = client.get_metric_spec(object(&[("target", "0.8")])).await;
    let target = &target.unwrap().into_inner().metric_specs[0];
    assert_eq!((target.target_size_float, target.target_size), (0.8, 1));

    assert_eq!(
        scaler
            .metric("intentd_scaler_replicas{state=\"fresh\"}")
            .await,
        3.0
    );
    assert_eq!(scaler.metric("intentd_scaler_demand_replicas").await, 3.75);
    let calls = "intentd_scaler_rpcs_total{code=\"0\",method=\"GetMetricSpec\"}";
    assert_eq!(scaler.metric(calls).await, 2.0);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http::get(scaler.admin, path, &[]).await.status, 200);
    }
    let old = http::get(scaler.address, "/", &[]).await.status;
    assert_eq!(old, 505, "gRPC is HTTP/2 alone");
    for replica in &replicas {
        replica.says(0.0);
    }
    until(
        || scaler.metric("intentd_scaler_demand_replicas"),
        |sum| *sum == 0.0,
    )
    .await;
    assert_eq!(demand(&mut client, &[]).await.unwrap(), (0.0, 0));
    assert!(!is_active(&mut client, &[]).await.unwrap());
}

#[tokio::test]
async fn a_replica_that_dies_counts_for_a_while() {
    let (stays, dies) = (Answering::replica(1.0).await, Answering::replica(5.0).await);
    let places = format!("{},{}", stays.place(), dies.place());
    let keeps = Scaler::start(&["--replicas", &places, "--keep", "1000s"]);
    let at_once = ["--keep", "0", "--stale-after", "0"];
    let drops = Scaler::start(&[&["--replicas", &places][..], &at_once].concat());
    for scaler in [&keeps, &drops] {
        let mut client = scaler.client().await;
        assert_eq!(demand(&mut client, &[]).await.unwrap().0, 6.0);
    }
    dies.dies();
    let kept = "intentd_scaler_replicas{state=\"kept\"}";
    until(|| keeps.metric(kept), |count| *count == 1.0).await;
    assert_eq!(demand(&mut keeps.client().await, &[]).await.unwrap().0, 6.0);
    let silent = "intentd_scaler_replicas{state=\"silent\"}";
    until(|| drops.metric(silent), |count| *count == 1.0).await;
    assert_eq!(demand(&mut drops.client().await, &[]).await.unwrap().0, 1.0);
    // A pod that ends is no news: its address leaves DNS soon.
    let is_told = |log: &String| log.contains("a replica does not answer");
    until(async || keeps.log(), is_told).await;
}

#[tokio::test]
async fn what_is_not_known_is_unavailable_and_no_number() {
    let replica = Answering::replica(3.0).await;
    let place = replica.place();
    let flags = ["--replicas", &place, "--keep", "0", "--stale-after", "0"];
    let scaler = Scaler::start(&flags);
    let mut client = scaler.client().await;
    for text in [
        "",
        "{}",
        "{\"demand_replicas\": null}",
        "{\"demand_replicas\": -1}",
        "{\"demand_replicas\": 1e999}",
    ] {
        replica.says(3.0);
        until(
            || scaler.metric("intentd_scaler_demand_replicas"),
            |sum| *sum == 3.0,
        )
        .await;
        replica.answers(Some(text.to_owned()));
        until(
            || scaler.metric("intentd_scaler_demand_replicas"),
            |sum| *sum == 0.0,
        )
        .await;
        let error = demand(&mut client, &[]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{text}: {error}");
        assert!(error.message().contains(&place), "{error}");
    }
    replica.dies();
    let refused = || scaler.metric("intentd_scaler_poll_failures_total{kind=\"connect\"}");
    until(refused, |count| *count > 0.0).await;
    let error = is_active(&mut client, &[]).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let unavailable = "intentd_scaler_rpcs_total{code=\"14\",method=\"IsActive\"}";
    assert_eq!(scaler.metric(unavailable).await, 1.0);
}

#[tokio::test]
async fn the_stream_says_each_change_and_ends_with_the_process() {
    let replica = Answering::replica(0.0).await;
    let mut scaler = Scaler::start(&["--replicas", &replica.place(), "--stale-after", "1000s"]);
    let mut client = scaler.client().await;
    let mut changes = client
        .stream_is_active(object(&[]))
        .await
        .unwrap()
        .into_inner();
    let mut targets = client
        .stream_metric_spec(object(&[]))
        .await
        .unwrap()
        .into_inner();
    let target = targets.message().await.unwrap().unwrap();
    assert_eq!(target.metric_specs[0].target_size_float, 1.0);
    assert!(!changes.message().await.unwrap().unwrap().result);
    replica.says(2.5);
    assert!(changes.message().await.unwrap().unwrap().result);
    // A replica that fails has not become idle.
    replica.answers(None);
    let failures = || scaler.metric("intentd_scaler_poll_failures_total{kind=\"answer\"}");
    until(failures, |count| *count >= 3.0).await;
    assert!(is_active(&mut client, &[]).await.unwrap());
    replica.says(0.0);
    assert!(!changes.message().await.unwrap().unwrap().result);
    replica.says(0.5);
    assert!(changes.message().await.unwrap().unwrap().result);

    scaler.kill("TERM");
    assert_eq!(changes.message().await.unwrap(), None, "it ends well");
    assert_eq!(targets.message().await.unwrap(), None, "it ends well");
    let ended = tokio::task::spawn_blocking(move || (scaler.child.wait().unwrap(), scaler));
    let (status, scaler) = ended.await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", scaler.log());
}

#[tokio::test]
async fn names_are_all_their_addresses_and_none_is_not_a_failure() {
    let Some(dns) = Dns::start(Ipv4Addr::new(127, 0, 53, 1)).await else {
        return;
    };
    let first = Answering::replica(1.0).await;
    let port = first.address.port();
    let address = |last| Ipv4Addr::new(127, 0, 0, last);
    let second = Answering::replica_at((address(2), port).into(), 2.0).await;
    let name = "intentd-headless.test.svc";
    let addresses = |last: &[u8]| Says::Addresses(last.iter().copied().map(address).collect());
    dns.says(name, Says::Fails);
    let place = format!("{name}.:{port}");
    let flags = [
        "--replicas",
        &place,
        "--keep",
        "1000s",
        "--stale-after",
        "1000s",
    ];
    let scaler = Scaler::start_with(&dns, &flags);
    let mut client = scaler.client().await;
    let error = is_active(&mut client, &[]).await.unwrap_err();
    assert_eq!(
        error.code(),
        Code::Unavailable,
        "a resolver that fails knows nothing"
    );

    dns.says(name, addresses(&[1, 2]));
    until(
        || scaler.metric("intentd_scaler_demand_replicas"),
        |sum| *sum == 3.0,
    )
    .await;
    assert_eq!(demand(&mut client, &[]).await.unwrap(), (3.0, 3));
    second.dies();
    dns.says(name, addresses(&[1]));
    until(
        || scaler.metric("intentd_scaler_demand_replicas"),
        |sum| *sum == 1.0,
    )
    .await;
    assert_eq!(
        demand(&mut client, &[]).await.unwrap().0,
        1.0,
        "gone at once"
    );
    dns.says(name, Says::Fails);
    let failures = || scaler.metric("intentd_scaler_poll_failures_total{kind=\"resolve\"}");
    let before = failures().await;
    until(failures, |count| *count > before + 1.0).await;
    assert_eq!(demand(&mut client, &[]).await.unwrap().0, 1.0, "as it was");
    assert!(is_active(&mut client, &[]).await.unwrap());
    for none in [Says::NoSuchName, addresses(&[])] {
        dns.says(name, none);
        let fresh = || scaler.metric("intentd_scaler_replicas{state=\"fresh\"}");
        until(fresh, |count| *count == 0.0).await;
        assert_eq!(demand(&mut client, &[]).await.unwrap(), (0.0, 0));
        assert!(!is_active(&mut client, &[]).await.unwrap());
        dns.says(name, addresses(&[1]));
        until(fresh, |count| *count == 1.0).await;
    }
    let log = scaler.log();
    assert_eq!(log.matches("nothing that could wake").count(), 1, "{log}");
}

fn vector(value: &str) -> Option<String> {
    let data =
        format!(r#"{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}"#);
    Some(format!(r#"{{"status":"success","data":{data}}}"#))
}

#[tokio::test]
async fn a_query_wakes_what_has_no_replica() {
    let Some(dns) = Dns::start(Ipv4Addr::new(127, 0, 53, 2)).await else {
        return;
    };
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let prometheus = Answering::start(any, None).await;
    let url = format!("http://{}", prometheus.address);
    let scaler = Scaler::start_with(&dns, &["--wake-prometheus", &url, "--stale-after", "1000s"]);
    let trigger = [
        ("replicas", "intentd-headless.test.svc.:9100"),
        ("wakeQuery", "sum(rate(requests{a=\"b\"}[1m]))"),
        ("wakeThreshold", "5"),
        ("target", "0.5"),
    ];
    let mut client = scaler.client().await;
    let error = is_active(&mut client, &trigger).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("Prometheus"), "{error}");
    let sent = prometheus.queries.lock().unwrap()[0].clone();
    let sent: Vec<_> = form_urlencoded::parse(sent.as_bytes()).collect();
    assert_eq!(sent, [("query".into(), trigger[1].1.into())]);

    let mut changes = client
        .stream_is_active(object(&trigger))
        .await
        .unwrap()
        .into_inner();
    prometheus.answers(vector("5"));
    assert!(
        !changes.message().await.unwrap().unwrap().result,
        "not above it"
    );
    assert_eq!(demand(&mut client, &trigger).await.unwrap(), (0.0, 0));
    prometheus.answers(vector("NaN"));
    let failures = || scaler.metric("intentd_scaler_poll_failures_total{kind=\"wake\"}");
    let before = failures().await;
    until(failures, |count| *count > before + 1.0).await;
    prometheus.answers(vector("5.5"));
    assert!(changes.message().await.unwrap().unwrap().result);
    assert_eq!(
        demand(&mut client, &trigger).await.unwrap(),
        (0.5, 1),
        "one replica's worth"
    );
    prometheus.answers(Some(
        r#"{"data":{"resultType":"vector","result":[]}}"#.to_owned(),
    ));
    assert!(!changes.message().await.unwrap().unwrap().result);
}

#[tokio::test]
async fn bad_metadata_is_refused_with_all_that_is_wrong() {
    let scaler = Scaler::start(&["--max-workloads", "1"]);
    let mut client = scaler.client().await;
    let bad = [
        ("replicas", "no-port"),
        ("target", "0"),
        ("wakeQuery", "up"),
        ("wakeTopics", "a"),
    ];
    let error = client.get_metric_spec(object(&bad)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    for part in ["no-port", "target", "wakePrometheus", "wakeTopics"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    let error = is_active(&mut client, &[]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("replicas"), "{error}");
    let replica = Answering::replica(1.0).await;
    let place = replica.place();
    let request = GetMetricsRequest {
        scaled_object_ref: Some(object(&[("replicas", &place)])),
        metric_name: "s0-requests".to_owned(),
    };
    let error = client.get_metrics(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("\"demand\""), "{error}");
    assert_eq!(
        demand(&mut client, &[("replicas", &place)])
            .await
            .unwrap()
            .0,
        1.0
    );
    let error = demand(&mut client, &[("replicas", "127.0.0.1:1")])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
}

#[test]
fn wrong_flags_are_reported_at_once() {
    let flags = [
        "scaler",
        "--replicas",
        "nowhere",
        "--interval",
        "soon",
        "--keep",
        "long",
        "--fixed",
        "--tls-client-ca",
        "ca.pem",
    ];
    let output = run(&flags, "");
    let (code, error) = failure(&output);
    assert_eq!(code, Some(64), "{error}");
    for flag in [
        "--replicas",
        "--interval",
        "--keep",
        "--fixed",
        "--tls-client-ca",
    ] {
        assert!(error.contains(flag), "{flag} is missing from:\n{error}");
    }
    let from_environment = |variable: &str, value: &str| {
        let mut command: Command = intentd();
        command
            .args(["scaler", "--interval", "soon"])
            .env(variable, value);
        command.output().unwrap()
    };
    let output = from_environment("INTENTD_SCALER_KEEP", "long");
    let (_, error) = failure(&output);
    assert!(
        error.contains("--keep") && error.contains("--interval"),
        "{error}"
    );
    let output = from_environment("INTENTD_SCALER_PORT", "tcp://10.0.0.1:9101");
    let (_, error) = failure(&output);
    assert!(!error.contains("--port"), "{error}");
}
