//! A Kafka-compatible broker for tests and for a demonstration on one machine.
//!
//! The broker is librdkafka's own mock cluster: it speaks the protocol over TCP, keeps its records in
//! memory and supports consumer groups, classic ones and those of KIP-848. It supports neither TLS nor
//! SASL; the gate in front of it ([`Settings::gate`]) does.
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
//! Differences from Apache Kafka:
//! - A partition keeps 5 MiB of batches as they were sent, usually compressed. The oldest are dropped silently;
//!   [`Broker::low_watermarks`] shows that.
//! - It does not detect an idempotent producer's batch that is sent twice. Lost connections may cause
//!   duplicates.
//! - It has no administration. [`Broker::create_topic`] creates a topic; a producer's first write
//!   to an unknown topic creates it with four partitions.
//! - Nothing is written to disk. All records end with the [`Broker`].
//!
//! Modules, in the order in which a client's bytes pass them:
//! - `gate`: the port with TLS and SASL
//! - `mock`: the mock cluster, with all `unsafe` code of the package
//! - `broker`: combines both, and lets a test control them
//! - `traffic`: writes and reads records for tests and their assertions; `ending` ends its clients

mod broker;
mod ending;
mod error;
mod gate;
mod mock;
mod settings;
mod traffic;

pub use broker::Broker;
pub use error::BrokerError;
pub use mock::Api;
pub use settings::{Compression, Gate, GroupTimings, Login, Mechanism, Settings};
pub use traffic::{Header, Record, Stored};
