//! `intentd relay`: delivers records to a URL.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use intentd_broker::Record;

use super::fixture::{LETTERS, TOPIC, all_is_committed, broker, produce, read};
use crate::support::process::{intentd, kill};
use crate::support::server::{TestServer, eventually};

const GROUP: &str = "relays";

struct Relay(Child);

impl Relay {
    /// Starts a relay and waits until it reads.
    fn start(bootstrap: &str, sink: &str, more: &[&str]) -> Self {
        let mut child = intentd()
            .args(["relay", "--sink", sink, "--kafka-brokers", bootstrap])
            .args([
                "--kafka-topic",
                TOPIC,
                "--kafka-group",
                GROUP,
                "--admin-port",
                "0",
            ])
            .args([
                "--kafka-group-protocol",
                "consumer",
                "--retry-delay",
                "10ms",
            ])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("reading Kafka") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program ended");
        }
        // Its pipe must not fill up.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self(child)
    }

    fn stop(mut self) {
        kill(self.0.id(), "TERM");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Relay {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A sink that answers the first requests of each key with these statuses, and later ones with 200.
async fn sink(statuses: BTreeMap<&'static str, Vec<u16>>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let state = (Arc::clone(&seen), Arc::new(Mutex::new(statuses)));
    type Shared = (Seen, Arc<Mutex<BTreeMap<&'static str, Vec<u16>>>>);
    let take = async |State((seen, statuses)): State<Shared>, headers: HeaderMap, body: Bytes| {
        let key = headers
            .get("ce-key")
            .map(|key| key.to_str().unwrap().to_owned());
        seen.lock().unwrap().push((headers, body));
        let mut statuses = statuses.lock().unwrap();
        let rest = statuses.get_mut(key.unwrap_or_default().as_str());
        let status = rest.and_then(|rest| (!rest.is_empty()).then(|| rest.remove(0)));
        StatusCode::from_u16(status.unwrap_or(200)).unwrap()
    };
    let routes = Router::new()
        .route("/predict", post(take))
        .with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, routes).await });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_reach_an_intentd_server() {
    let broker = broker();
    produce(&broker, 0..200);
    let server = TestServer::start(&[]).await;
    let sink = format!("http://{}/predict", server.address);
    let relay = Relay::start(&broker.bootstrap(), &sink, &[]);
    all_is_committed(&broker, GROUP).await;
    let series = "intentd_requests_total{outcome=\"answered\",surface=\"cloudevents\"}";
    assert_eq!(server.metric(series).await, 200.0);
    relay.stop();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_retried_or_becomes_a_dead_letter() {
    let broker = broker();
    let statuses = [
        ("busy", vec![429, 503]),
        ("poison", vec![422]),
        ("never", vec![500; 10]),
    ];
    let (address, seen) = sink(statuses.into()).await;
    for key in ["fine", "busy", "poison", "never"] {
        broker
            .produce(TOPIC, [Record::new("play").key(key)])
            .unwrap();
    }
    let sink = format!("http://{address}/predict?query=music");
    let more = [
        "--retry",
        "3",
        "--domain",
        "intents.example.com",
        "--kafka-dead-letter-topic",
        LETTERS,
    ];
    let relay = Relay::start(&broker.bootstrap(), &sink, &more);
    all_is_committed(&broker, GROUP).await;
    let times = |key: &str| {
        let seen = seen.lock().unwrap();
        seen.iter()
            .filter(|(headers, _)| headers["ce-key"] == key)
            .count()
    };
    let counts = ["fine", "busy", "poison", "never"].map(times);
    assert_eq!(counts, [1, 3, 1, 4]);
    let (headers, body) = seen.lock().unwrap()[0].clone();
    for (name, value) in [
        ("host", "intents.example.com"),
        ("prefer", "reply"),
        ("ce-type", "dev.knative.kafka.event"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert_eq!(body, "play");
    let letters = read(&broker, LETTERS, 2).await;
    let mut kinds: Vec<_> = letters
        .iter()
        .map(|letter| {
            let kind = letter.header("intentd-error-type").unwrap();
            (
                letter.key.clone().unwrap(),
                String::from_utf8(kind.to_vec()).unwrap(),
            )
        })
        .collect();
    kinds.sort();
    let expected = [
        (b"never".to_vec(), "Undelivered"),
        (b"poison".to_vec(), "Refused"),
    ];
    assert_eq!(kinds, expected.map(|(key, kind)| (key, kind.to_owned())));
    relay.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dead_letter_topic_a_record_is_retried_until_accepted() {
    let broker = broker();
    let (address, seen) = sink([("late", vec![503; 8])].into()).await;
    broker
        .produce(TOPIC, [Record::new("play").key("late")])
        .unwrap();
    let sink = format!("http://{address}/predict");
    let relay = Relay::start(
        &broker.bootstrap(),
        &sink,
        &["--retry", "1", "--retry-policy", "linear"],
    );
    eventually("it is delivered", || seen.lock().unwrap().len() == 9).await;
    all_is_committed(&broker, GROUP).await;
    relay.stop();
}
