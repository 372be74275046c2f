//! Kafka: topics as a source of texts, and topics for what becomes of them.
//!
//! ```text
//! topic ── reader ──── source ──► Classifier ── outlet ──► topic of results, topic of dead letters
//!            │    └─── relay ───► POST to a URL, as Knative's KafkaSource does
//!            └ ledger: an offset is committed when it and all before it are finished
//! ```
//!
//! At least once: nothing that was read is lost, and what was unfinished when a process died is read again.
//! There is no refusal for load on this way. What cannot be taken on stays in the topic, where its lag counts
//! as demand.

#[cfg(feature = "kafka")]
mod callbacks;
#[cfg(feature = "kafka")]
mod client;
#[cfg(feature = "kafka")]
mod commit;
#[cfg(feature = "kafka")]
mod lag;
#[cfg(feature = "kafka")]
mod ledger;
#[cfg(feature = "kafka")]
mod meeting;
#[cfg(feature = "kafka")]
mod metrics;
#[cfg(feature = "kafka")]
mod outlet;
#[cfg(feature = "kafka")]
mod partition;
#[cfg(feature = "kafka")]
mod produce;
#[cfg(feature = "kafka")]
mod reader;
#[cfg(feature = "kafka")]
mod record;
#[cfg(feature = "kafka")]
pub mod relay;
mod settings;
#[cfg(feature = "kafka")]
mod source;
#[cfg(feature = "kafka")]
mod state;
#[cfg(feature = "kafka")]
mod window;

#[cfg(feature = "kafka")]
pub use self::client::{ClientError, producer_settings};
#[cfg(feature = "kafka")]
pub use self::metrics::KafkaMetrics;
#[cfg(feature = "kafka")]
pub use self::produce::{ProduceError, Produced, Production, produce};
pub use self::settings::{
    Connection, Credentials, GroupProtocol, Mechanism, RelaySettings, RetryPolicy, Security,
    SourceSettings, Start,
};
#[cfg(feature = "kafka")]
pub(crate) use self::source::Source;
