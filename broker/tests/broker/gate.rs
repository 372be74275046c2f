//! TLS and SASL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use intentd_broker::{Broker, Gate, Login, Mechanism, Settings};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::{PATIENCE, TOPIC, member, numbered, read, sum};

fn login(mechanism: Mechanism) -> Login {
    Login {
        mechanism,
        username: "app, the=first".to_owned(),
        password: "s3cret".to_owned(),
    }
}

fn start(gate: Gate) -> Broker {
    Broker::start(&Settings::topic(TOPIC, 3).behind(gate)).unwrap()
}

/// Collects librdkafka's errors.
struct Errors(std::sync::mpsc::Sender<KafkaError>);

impl ClientContext for Errors {
    fn error(&self, error: KafkaError, _reason: &str) {
        let _ = self.0.send(error);
    }
}

impl ConsumerContext for Errors {}

/// Whether a client with these settings gets an error with this code.
fn gets_error(config: &ClientConfig, code: RDKafkaErrorCode) -> bool {
    let (sender, errors) = std::sync::mpsc::channel();
    let mut config = config.clone();
    config.set("group.id", "g");
    let client: BaseConsumer<Errors> = config.create_with_context(Errors(sender)).unwrap();
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        drop(client.poll(Duration::from_millis(20)));
        if errors
            .try_iter()
            .any(|error| error.rdkafka_error_code() == Some(code))
        {
            return true;
        }
    }
    false
}

/// Checks that everything works as without a gate.
fn check_service(broker: &Broker) {
    let started = Instant::now();
    assert!(broker.bootstrap().starts_with("localhost:"));
    broker.produce(TOPIC, numbered(1000)).unwrap();
    assert_eq!(broker.consume_all(TOPIC, PATIENCE).unwrap().len(), 1000);
    let reader = member(broker.client_config(), "g", false);
    read(&reader, 1000);
    assert_eq!(sum(broker, "g"), 1000);
    assert_eq!(
        broker.high_watermarks(TOPIC).unwrap().iter().sum::<i64>(),
        1000
    );
    println!("{broker:?} in {:?}", started.elapsed());
}

#[test]
fn only_the_right_login_over_tls_is_accepted() {
    for mechanism in Mechanism::ALL {
        let broker = start(Gate::SaslSsl(login(mechanism)));
        check_service(&broker);
        assert_eq!(broker.refused(), 0, "{mechanism:?}");
        for (key, wrong) in [("sasl.password", "s3cre"), ("sasl.username", "app")] {
            let before = broker.refused();
            let mut config = broker.client_config();
            config.set(key, wrong);
            assert!(
                gets_error(&config, RDKafkaErrorCode::Authentication),
                "{mechanism:?} {key}"
            );
            assert!(broker.refused() > before, "{mechanism:?} {key}");
        }
    }
}

#[test]
fn another_mechanism_is_refused() {
    let broker = start(Gate::SaslSsl(login(Mechanism::ScramSha512)));
    let mut config = broker.client_config();
    config.set("sasl.mechanism", Mechanism::Plain.name());
    assert!(gets_error(&config, RDKafkaErrorCode::Authentication));
    assert!(broker.refused() > 0);
}

#[test]
fn a_client_with_another_authority_does_not_connect() {
    let (broker, other) = (start(Gate::Ssl), start(Gate::Ssl));
    assert_ne!(broker.ca_pem(), other.ca_pem());
    let mut config = broker.client_config();
    config.set("ssl.ca.pem", other.ca_pem().unwrap());
    assert!(gets_error(&config, RDKafkaErrorCode::SSL));
    assert_eq!(broker.refused(), 0);
    check_service(&broker);
}

#[test]
fn a_login_without_tls_works() {
    let broker = start(Gate::SaslPlaintext(login(Mechanism::ScramSha256)));
    assert_eq!(broker.ca_pem(), None);
    check_service(&broker);
    let mut config = broker.client_config();
    config.set("sasl.password", "wrong");
    assert!(gets_error(&config, RDKafkaErrorCode::Authentication));
}

#[test]
fn a_gate_follows_its_broker_down_and_up() {
    let broker = start(Gate::SaslSsl(login(Mechanism::ScramSha512)));
    broker.produce(TOPIC, numbered(5)).unwrap();
    let reader = member(broker.client_config(), "g", false);
    read(&reader, 5);
    broker.go_down().unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let produced = scope.spawn(|| broker.produce(TOPIC, numbered(5)));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!produced.is_finished());
        broker.come_up().unwrap();
        assert_eq!(produced.join().unwrap().unwrap(), 5);
    });
    println!("produced after {:?}", started.elapsed());
    read(&reader, 5);
    assert_eq!(broker.refused(), 0);
}

#[test]
fn invalid_messages_close_the_connection() {
    let broker = start(Gate::SaslPlaintext(login(Mechanism::Plain)));
    let metadata = b"\0\0\0\x10\0\x03\0\x01\0\0\0\x01\0\0\xff\xff\xff\xff\0\0";
    let unasked = b"\0\0\0\x10\0\x24\0\x01\0\0\0\x01\0\0\0\0\0\x02hi";
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02hi",
        metadata,
        unasked,
    ] {
        let mut stream = TcpStream::connect(broker.bootstrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset has the same meaning.
        let _ = stream.read_to_end(&mut answer);
        let expected = if bytes == unasked {
            4 + 4 + 2 + 2 + 21 + 4 + 8
        } else {
            0
        };
        assert_eq!(answer.len(), expected, "{bytes:?}");
    }
    // Only the token without a handshake counts as a refused login.
    assert_eq!(broker.refused(), 1);
    check_service(&broker);
}
