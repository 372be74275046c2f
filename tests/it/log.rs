//! The log is not longer than what there is to say, however often others make it happen.

use tokio::io::AsyncWriteExt;

use crate::http2::{PING, connect, frame, next_frame};
use crate::support::http::get;
use crate::support::process::Server;
use crate::support::scaler::{Scaler, until};

/// Lines that say `what`.
fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}

#[tokio::test]
async fn addresses_that_refuse_are_said_together() {
    // Nobody listens on port 1 of any of them.
    let places: Vec<String> = (1..=250)
        .flat_map(|low| [1, 2].map(|high| format!("127.0.{high}.{low}:1")))
        .collect();
    let places = places.join(",");
    let scaler = Scaler::start(&["--replicas", &places, "--max-replicas", "500"]);
    let silent = "intentd_scaler_replicas{state=\"silent\"}";
    until(|| scaler.metric(silent), |count| *count == 500.0).await;
    until(async || scaler.log(), |log| log.contains("does not answer")).await;
    let log = scaler.log();
    assert!(count(&log, "does not answer") <= 10, "{log}");
    // A busy machine may find them in more than one round, of which the later are said later.
    let said = log
        .split("replicas=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let said: usize = said.and_then(|number| number.parse().ok()).unwrap();
    assert!(said > 1, "{log}");
    assert!(log.len() < 10_000, "{log}");
}

#[tokio::test]
async fn requests_without_time_are_said_together() {
    let collector = ["--otlp-endpoint", "http://127.0.0.1:1"];
    let mut server = Server::start(&[&["--port", "0"][..], &collector].concat(), &[]);
    server.ready().await;
    for _ in 0..100 {
        let path = "/predict?query=a";
        let answer = get(server.address, path, &["X-Request-Timeout-Ms: 0"]).await;
        assert_eq!(answer.status, 504, "{answer:?}");
    }
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
    let failed = count(&log, "request failed");
    assert!((1..=10).contains(&failed), "{log}");
    assert!(count(&log, "spans dropped") <= 10, "{log}");
}

/// h2 warns of each acknowledgement that nobody has asked for.
#[tokio::test]
async fn frames_that_make_no_sense_are_not_said_at_all() {
    let mut server = Server::start(&["--port", "0"], &[]);
    server.ready().await;
    let mut stream = connect(server.address).await;
    let answers = frame(PING, 1, 0, &[9; 8]).repeat(1000);
    stream.write_all(&answers).await.unwrap();
    stream.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    while next_frame(&mut stream).await.expect("it is open").kind != PING {}
    drop(stream);
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(count(&log, "h2::"), 0, "{log}");
}
