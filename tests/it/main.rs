//! Integration tests, in one binary so that the crate is linked once.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test itself may"
)]

#[cfg(feature = "kafka-broker")]
#[path = "../parties/kafka/mod.rs"]
mod apache_kafka;
mod bench;
mod checkpoint;
mod cloudevents;
mod cuda;
mod exhaustion;
mod expensive;
mod faults;
mod framing;
mod fuzz;
mod golden;
mod hints;
mod hostile;
mod http2;
mod inference;
#[cfg(feature = "kafka-broker")]
mod kafka;
#[path = "../parties/knative/mod.rs"]
mod knative;
mod life;
mod log;
mod overload;
mod predict;
mod process;
mod profile;
mod readme;
mod reload;
mod scaler;
#[cfg(feature = "kafka")]
mod scaler_kafka;
mod scaler_tls;
mod serving;
mod settings;
mod support;
mod tei;
mod tls;
mod tokenization;
mod trace;
mod unread;
