//! CloudEvents 1.0, over HTTP on `POST /` and `POST /predict` and in records of Kafka: what Knative's KafkaSource,
//! Brokers and Sequences send, and the events that answer them.

mod answer_cache;
mod asked;
mod delivery;
mod event;
mod http;
mod record;
mod reply;
mod settings;
mod text;

pub use self::asked::{AskedEvent, decode_events};
pub use self::delivery::{RecordPlace, record_as_request};
pub(super) use self::http::{EventAnswer, EventRequest, SURFACE, answer, is_event};
#[cfg(feature = "kafka")]
pub(crate) use self::record::EventQuestion;
pub use self::record::{EventRecord, RecordAnswer, decode_record};
pub use self::reply::EventSource;
pub(crate) use self::settings::EventContext;
pub use self::settings::EventSettings;
pub use self::text::TextPointer;
