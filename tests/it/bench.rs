//! `intentd bench` against this server, and against servers that stall, refuse and break.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use indicatif::ProgressBar;
use intentd::bench::{
    Expected, Load, Loads, Measured, Objective, Options, Plan, Protocol, Runner, Target, measure,
    read_texts,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::server::TestServer;

const OPTIONS: Options = Options {
    warm_up: Duration::from_millis(200),
    duration: Duration::from_secs(1),
    timeout: Duration::from_secs(30),
    connections: 8,
    streams: 4,
    workers: 2,
    seed: 1,
};

/// One connection, and nothing before the measurement.
const ALONE: Options = Options {
    warm_up: Duration::ZERO,
    connections: 1,
    workers: 1,
    ..OPTIONS
};

fn runner(options: Options) -> Runner {
    let texts = read_texts(None).unwrap();
    Runner { options, texts }
}

fn target(address: SocketAddr, protocol: Protocol) -> Target {
    let url = format!("http://{address}/predict?query={{query}}");
    let mut target: Target = url.parse().unwrap();
    target.protocol = protocol;
    target
}

fn load(text: &str) -> Load {
    let Loads(mut loads) = text.parse().unwrap();
    loads.remove(0)
}

async fn run(options: Options, target: Target, load: Load, expected: Expected) -> Measured {
    let bar = ProgressBar::hidden();
    let run = move || runner(options).run(&target, &load, &expected, &bar);
    tokio::task::spawn_blocking(run).await.unwrap().unwrap()
}

/// What the client counts is what the server counts, in both versions of HTTP, and every label is
/// that of the text alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_answered_and_counted() {
    let answered = "intentd_requests_total{outcome=\"answered\"}";
    for protocol in [Protocol::Http1, Protocol::H2c] {
        let server = TestServer::start(&[]).await;
        let target = target(server.address, protocol);
        let of = target.clone();
        let labels = move || runner(OPTIONS).labels(&of, &ProgressBar::hidden());
        let labels = tokio::task::spawn_blocking(labels).await.unwrap().unwrap();
        let asked = server.metric(answered).await;
        assert!(asked > 100.0, "one request a text");
        let measured = run(OPTIONS, target, load("constant:200"), labels).await;
        assert_eq!((measured.offered, measured.answered), (200, 200));
        assert_eq!(measured.failures(), []);
        // The warm-up is sent, too, and not counted by the client.
        assert_eq!(server.metric(answered).await - asked, 240.0);
        assert!(measured.percentile(50.0).unwrap() > 0.0);
        server.stop().await;
    }
}

/// A server that gives each connection, request after request, to `serve`.
async fn stub<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads one request without a body; false when the client has closed.
async fn request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server that stands still once makes all those late who would have come meanwhile, although
/// one connection sends nothing while it waits: the latency counts from when a request was to be
/// sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_counts_for_everybody_who_would_have_come() {
    let address = stub(|mut stream| async move {
        let mut asked = 0;
        while request(&mut stream).await {
            asked += 1;
            if asked == 20 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            stream
                .write_all(answer("200 OK", "A").as_bytes())
                .await
                .unwrap();
        }
    })
    .await;
    let target = target(address, Protocol::Http1);
    let measured = run(ALONE, target, load("constant:100"), Expected::anything()).await;
    assert_eq!((measured.offered, measured.answered), (100, 100));
    let within = |ms| Objective {
        latency: Duration::from_millis(ms),
        percentile: 75.0,
    };
    // Fifty requests come in those 500 ms, and wait 250 ms on average.
    assert!(!measured.holds(within(100)), "{measured:?}");
    assert!(measured.max().unwrap() >= 490.0, "{measured:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_has_its_name() {
    let address = stub(|mut stream| async move {
        let mut asked = 0;
        while request(&mut stream).await {
            asked += 1;
            let answer = match asked % 5 {
                0 => return,
                1 => answer("200 OK", "{\"label\": \"A\"}"),
                2 => answer("503 Service Unavailable", "busy"),
                3 => answer("500 Internal Server Error", "broken"),
                _ => answer("200 OK", "{\"nothing\": 1}"),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let target = target(address, Protocol::Http1);
    let of = target.clone();
    let anything = run(
        ALONE,
        target.clone(),
        load("constant:50"),
        Expected::anything(),
    )
    .await;
    assert_eq!(
        (anything.offered, anything.answered, anything.refused),
        (50, 20, 10)
    );
    assert_eq!((anything.broken, anything.statuses[&500]), (10, 10));
    assert!(!anything.reasons["connection broken"].is_empty());
    // The texts cannot be given labels by such a server, and that is said.
    let labels = move || runner(ALONE).labels(&of, &ProgressBar::hidden());
    let error = tokio::task::spawn_blocking(labels)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.contains("503"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_in_time_is_a_timeout_and_the_connection_is_replaced() {
    let address = stub(|mut stream| async move {
        // Silent once, then a connection that answers.
        static FIRST: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);
        while request(&mut stream).await {
            if FIRST.swap(false, std::sync::atomic::Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
            stream
                .write_all(answer("200 OK", "A").as_bytes())
                .await
                .unwrap();
        }
    })
    .await;
    let options = Options {
        timeout: Duration::from_millis(1500),
        ..ALONE
    };
    let target = target(address, Protocol::Http1);
    let measured = run(options, target, load("constant:2"), Expected::anything()).await;
    assert_eq!(
        (measured.offered, measured.timed_out, measured.answered),
        (2, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_targets_are_compared_and_a_search_finds_a_rate() {
    let server = TestServer::start(&[]).await;
    let address = server.address;
    // The search goes up to eight times what the server can do: each step leaves that much to be answered.
    let options = Options {
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(60),
        ..OPTIONS
    };
    let plan = Plan {
        loads: Vec::new(),
        objective: Some(Objective {
            latency: Duration::from_secs(20),
            percentile: 50.0,
        }),
        search: Some(0.5),
        rounds: 2,
        check: true,
        compare: true,
    };
    let compare = move || {
        let targets = [Protocol::Http1, Protocol::H2c].map(|protocol| target(address, protocol));
        measure(&runner(options), &targets, &plan, &ProgressBar::hidden())
    };
    let report = tokio::task::spawn_blocking(compare).await.unwrap().unwrap();
    for series in &report.series {
        assert_eq!(series.rounds.len(), 2);
        assert!(series.highest().unwrap() > 0.0);
    }
    let json = report.json();
    assert_eq!(json["ratios"][0]["rounds"].as_array().unwrap().len(), 2);
    assert!(report.table().contains("times as good as"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_a_table_and_writes_json_and_a_picture() {
    let server = TestServer::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let url = format!("http://{}/predict", server.address);
    let (json, picture) = (file("a.json"), file("a.png"));
    let flags = [
        "bench",
        &url,
        "--body",
        "{\"query\": {json}}",
        "--load",
        "bursts:5/0.1s",
        "--load",
        "poisson:20,40",
        "--duration",
        "500ms",
        "--warm-up",
        "0s",
        "--json",
        &json,
        "--plot",
        &picture,
        "--slo",
        "10s",
    ];
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentd"));
        command.env_clear().args(flags);
        command.output().unwrap()
    };
    let output = tokio::task::block_in_place(command);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    for part in ["5 every 0.1 s", "poisson 40/s", "p99 ms", "yes"] {
        assert!(table.contains(part), "{part} is missing from\n{table}");
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let runs = json["targets"][0]["rounds"][0]["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    assert_eq!(runs[0]["answered"], 25);
    assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    server.stop().await;
}

#[test]
fn mistakes_are_told_and_nothing_is_sent() {
    let bench = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentd"));
        let output = command
            .env_clear()
            .arg("bench")
            .args(flags)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let nowhere = "http://127.0.0.1:1/predict?query={query}";
    let (code, text) = bench(&[nowhere, "--duration", "1s"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot connect"), "{text}");
    let flags = [
        "--connections",
        "0",
        "--percentile",
        "0",
        "--compare",
        "--texts",
        "/no/such",
    ];
    let (code, text) = bench(&flags);
    assert_eq!(code, Some(64), "{text}");
    for flag in ["--connections", "--percentile", "--compare", "/no/such"] {
        assert!(text.contains(flag), "{flag} is missing from {text}");
    }
    let (code, text) = bench(&[nowhere, "--plot", "a.pdf"]);
    assert_eq!(code, Some(64), "{text}");
    let (code, text) = bench(&["https://localhost/"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("no TLS"), "{text}");
    let (code, text) = bench(&["--find-max"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("--slo"), "{text}");
}
