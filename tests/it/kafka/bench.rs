//! `intentd bench kafka`.

use super::fixture::{TOPIC, broker};
use crate::support::process::{failure, run, stdout};

#[test]
fn the_articles_load_is_written() {
    let broker = broker();
    let bootstrap = broker.bootstrap();
    let flags = [
        "bench",
        "kafka",
        "--kafka-brokers",
        &bootstrap,
        "--kafka-topic",
    ];
    let output = run(&[&flags[..], &[TOPIC, "--duration", "2s"]].concat(), "");
    let text = stdout(&output);
    assert!(
        text.contains("100 records written") && text.contains("100 acknowledged"),
        "{text}"
    );
    let ends = broker.high_watermarks(TOPIC).unwrap();
    assert_eq!(ends.iter().sum::<i64>(), 100);
    let nobody = [
        "bench",
        "kafka",
        "--kafka-brokers",
        "127.0.0.1:1",
        "--kafka-topic",
        TOPIC,
    ];
    let output = run(&nobody, "");
    let (code, message) = failure(&output);
    assert_eq!(code, Some(1));
    assert!(message.contains("127.0.0.1:1"), "{message}");
}
