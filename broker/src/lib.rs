//! A Kafka-compatible broker for tests and for a demonstration on one machine.
//!
//! The broker is librdkafka's own mock cluster: it speaks the protocol over TCP, keeps its records in
//! memory and knows consumer groups, the classic ones and those of KIP-848. It knows neither TLS nor
//! SASL; with [`Settings::gate`] a gate stands in front of it that does.
//!
//! ```no_run
//! use intentd_broker::{Broker, Record, Settings};
//!
//! # fn main() -> Result<(), intentd_broker::BrokerError> {
//! let broker = Broker::start(&Settings::topic("intents", 3))?;
//! broker.produce("intents", [Record::new("play some jazz")])?;
//! println!("clients connect to {}", broker.bootstrap());
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do, so that no test takes it for Apache Kafka:
//! - A partition keeps 5 MiB of batches as they were sent, that is compressed; the oldest go without
//!   a word. [`Broker::low_watermarks`] tells.
//! - It does not know an idempotent producer's batch again when that is sent twice: after lost
//!   connections there may be duplicates.
//! - It has no administration: topics are made by [`Broker::create_topic`], or come into being with
//!   four partitions when a producer first writes to them.
//! - Nothing is written to disk: all is gone with the [`Broker`].
//!
//! Modules, in the order in which a client's bytes pass them:
//! - `gate`: the port with TLS and SASL
//! - `mock`: the mock cluster, with all `unsafe` of the package
//! - `broker`: both together, and what a test does to them
//! - `traffic`: records in and out, for tests and their assertions; `leaving` ends the clients that
//!   it needs

mod broker;
mod error;
mod gate;
mod leaving;
mod mock;
mod settings;
mod traffic;

pub use broker::Broker;
pub use error::BrokerError;
pub use mock::Api;
pub use settings::{Compression, Gate, GroupTimings, Login, Mechanism, Settings};
pub use traffic::{Header, Record, Stored};
