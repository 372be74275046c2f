//! Records as they were read.

use std::sync::Arc;

use axum::body::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::partition::Partition;
use crate::api::EventRecord as Message;

/// A record of a partition that is assigned.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) partition: Arc<Partition>,
    pub(super) offset: i64,
    /// When it was written, in milliseconds since 1970.
    pub(super) written: Option<i64>,
    pub(super) key: Option<Bytes>,
    pub(super) headers: Arc<[(String, Bytes)]>,
    pub(super) value: Option<Bytes>,
}

impl Record {
    pub(super) fn new(partition: Arc<Partition>, message: &BorrowedMessage<'_>) -> Self {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        let headers = headers.map(|header| {
            let value = header.value.map(bytes).unwrap_or_default();
            (header.key.to_owned(), value)
        });
        Self {
            partition,
            offset: message.offset(),
            written: message.timestamp().to_millis(),
            key: message.key().map(bytes),
            headers: headers.collect(),
            value: message.payload().map(bytes),
        }
    }

    /// The position of the record, as Knative's KafkaSource names it.
    pub(super) fn id(&self) -> String {
        format!("partition:{}/offset:{}", self.partition.number, self.offset)
    }

    /// The content of the record; with its id and source only if there is an answer.
    pub(super) fn message(&self, is_answered: bool) -> Message {
        let (id, source) = if is_answered {
            (self.id(), format!("/topics/{}", self.partition.topic))
        } else {
            Default::default()
        };
        Message {
            is_answered,
            id,
            source,
            key: self.key.clone(),
            headers: Arc::clone(&self.headers),
            value: self.value.clone(),
        }
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Partition { topic, number, .. } = &*self.partition;
        write!(f, "{topic}[{number}] at {}", self.offset)
    }
}
