//! Kafka: reads texts from topics, and writes predictions and dead letters to topics.
//!
//! ```text
//! topic ── reader ──── source ──► Classifier ── topic_writer ──► results topic, dead-letter topic
//!            │    └─── relay ───► POST to a URL, as Knative's KafkaSource does
//!            └ ledger: an offset is committed when it and all before it are finished
//! ```
//!
//! Delivery is at least once: no record is lost, and records in flight when a process dies are read again.
//! Records are not refused for load. They stay in the topic, where the lag counts as demand.

#[cfg(feature = "kafka")]
mod callbacks;
#[cfg(feature = "kafka")]
mod client;
#[cfg(feature = "kafka")]
mod commit;
#[cfg(feature = "kafka")]
mod connect;
#[cfg(feature = "kafka")]
mod diagnosis;
#[cfg(feature = "kafka")]
mod in_flight;
#[cfg(feature = "kafka")]
mod lag;
#[cfg(feature = "kafka")]
mod ledger;
#[cfg(feature = "kafka")]
mod metrics;
#[cfg(feature = "kafka")]
mod offset;
#[cfg(feature = "kafka")]
mod partition;
#[cfg(all(feature = "kafka", feature = "bench"))]
mod produce;
#[cfg(feature = "kafka")]
mod reader;
#[cfg(feature = "kafka")]
mod record;
#[cfg(feature = "kafka")]
pub mod relay;
#[cfg(feature = "kafka")]
mod relay_port;
mod settings;
#[cfg(feature = "kafka")]
mod source;
#[cfg(feature = "kafka")]
mod start;
#[cfg(feature = "kafka")]
mod state;
#[cfg(feature = "kafka")]
mod topic_writer;

#[cfg(feature = "kafka")]
pub use self::client::{ClientError, producer_settings};
#[cfg(feature = "kafka")]
pub use self::metrics::KafkaMetrics;
#[cfg(all(feature = "kafka", feature = "bench"))]
pub use self::produce::{ProduceError, Produced, Production, produce};
pub use self::settings::{
    Connection, Credentials, GroupProtocol, Mechanism, RelaySettings, RetryPolicy, Security,
    SourceSettings, Start,
};
#[cfg(feature = "kafka")]
pub(crate) use self::source::Source;
