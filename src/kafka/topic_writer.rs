//! Writes records to topics: predictions and dead letters.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::callbacks::log_librdkafka;
use super::client::{ClientError, producer_settings};
use super::metrics::{FailedOperation, KafkaMetrics};
use super::record::Record;
use super::settings::Connection;
use intentd_base::LogThrottle;

/// Pause before a record that failed is sent again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes records, and retries until brokers accept them.
pub(super) struct TopicWriter {
    settings: ClientConfig,
    metrics: KafkaMetrics,
    producer: Mutex<Producer>,
    retry_log: LogThrottle,
    loss_log: LogThrottle,
}

type Producer = FutureProducer<WriterContext>;

/// Why a record was not processed.
#[derive(Debug)]
pub(super) struct RecordError {
    /// One word, as in other interfaces' `error_type`.
    pub(super) kind: &'static str,
    /// A sentence.
    pub(super) reason: String,
}

/// A record to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutgoingRecord<'a> {
    pub(super) topic: &'a str,
    pub(super) key: Option<&'a [u8]>,
    pub(super) headers: &'a [(String, Vec<u8>)],
    pub(super) value: Option<&'a [u8]>,
}

impl std::fmt::Debug for TopicWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicWriter").finish_non_exhaustive()
    }
}

impl TopicWriter {
    pub(super) fn new(connection: &Connection, metrics: KafkaMetrics) -> Result<Self, ClientError> {
        let settings = producer_settings(connection)?;
        let producer = settings.create_with_context(WriterContext::default())?;
        Ok(Self {
            settings,
            metrics,
            producer: Mutex::new(producer),
            retry_log: LogThrottle::new(),
            loss_log: LogThrottle::new(),
        })
    }

    /// Writes a record; ready when brokers have it, without a time limit.
    ///
    /// # Errors
    /// When no broker will ever accept it, because it is too large.
    pub(super) async fn write(&self, record: OutgoingRecord<'_>) -> Result<(), KafkaError> {
        let OutgoingRecord {
            topic,
            key,
            headers,
            value,
        } = record;
        loop {
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| {
                    let value = Some(value);
                    all.insert(Header { key, value })
                });
            let mut record = FutureRecord::to(topic).headers(headers);
            record.key = key;
            record.payload = value;
            let producer = self.producer();
            match producer.send(record, Timeout::Never).await {
                Ok(_) => return Ok(()),
                Err((error, _)) => {
                    self.metrics.count_error(FailedOperation::Write);
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                        return Err(error);
                    }
                    if let Some(times) = self.retry_log.event() {
                        tracing::error!(%error, topic, times, "a record cannot be written; it is tried again");
                    }
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                        self.replace(&producer);
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Writes a record as it was read, with the error in its headers. A record that becomes too large by that loses
    /// its key, its value and its own headers; our headers say where it was.
    pub(super) async fn write_dead_letter(
        &self,
        topic: &str,
        record: &Record,
        error: &RecordError,
    ) {
        let headers = record.headers.iter();
        let mut headers: Vec<_> = headers
            .map(|(name, value)| (name.clone(), value.to_vec()))
            .collect();
        for (name, value) in [
            ("intentd-error-type", error.kind.to_owned()),
            ("intentd-error", error.reason.clone()),
            ("intentd-topic", record.partition.topic.to_string()),
            ("intentd-partition", record.partition.number.to_string()),
            ("intentd-offset", record.offset.to_string()),
        ] {
            headers.push((name.to_owned(), value.into_bytes()));
        }
        let letter = OutgoingRecord {
            topic,
            key: record.key.as_deref(),
            headers: &headers,
            value: record.value.as_deref(),
        };
        if self.write(letter).await.is_err() {
            let ours = &headers[record.headers.len()..];
            let bare = OutgoingRecord {
                key: None,
                headers: ours,
                value: None,
                ..letter
            };
            if let Err(error) = self.write(bare).await
                && let Some(times) = self.loss_log.event()
            {
                tracing::error!(%error, %record, times, "not even the reason can be written");
            }
        }
    }

    fn producer(&self) -> Producer {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        producer.clone()
    }

    /// Replaces a producer that has failed permanently.
    fn replace(&self, failed: &Producer) {
        use rdkafka::producer::Producer as _;
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = std::ptr::eq(producer.client(), failed.client());
        if is_same && let Ok(new) = self.settings.create_with_context(WriterContext::default()) {
            *producer = new;
        }
    }
}

#[derive(Default)]
struct WriterContext {
    log: LogThrottle,
}

impl ClientContext for WriterContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(times) = self.log.event() {
            tracing::warn!(%error, reason, times, "Kafka, writing");
        }
    }
}
