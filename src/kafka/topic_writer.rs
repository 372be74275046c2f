//! Writes records to topics: predictions and dead letters.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use super::callbacks::log_librdkafka;
use super::client::{ClientError, producer_settings};
use super::metrics::{FailedOperation, KafkaMetrics};
use super::record::Record;
use super::settings::Connection;
use super::state::{is_denial, is_denial_code};
use intentd_base::LogThrottle;

/// Pause before a record that failed is sent again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes records, and retries until brokers accept them.
pub(super) struct TopicWriter {
    settings: ClientConfig,
    metrics: KafkaMetrics,
    producer: Mutex<Option<Producer>>,
    /// Sends each record in a batch of its own, for records whose batch was too large for the topic.
    single: Mutex<Option<Producer>>,
    /// Topics that may not be written, by the last attempt.
    denied: Mutex<BTreeSet<String>>,
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
    /// The answer of the sink that refused it.
    pub(super) answer: Option<String>,
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
        let producer = settings.create_with_context(WriterContext)?;
        Ok(Self {
            settings,
            metrics,
            producer: Mutex::new(Some(producer)),
            single: Mutex::new(None),
            denied: Mutex::default(),
            retry_log: LogThrottle::new(),
            loss_log: LogThrottle::new(),
        })
    }

    /// Writes a record; ready when brokers have it, without a time limit.
    ///
    /// # Errors
    /// When no broker will ever accept it, because it is too large even in a batch of its own.
    pub(super) async fn write(&self, record: OutgoingRecord<'_>) -> Result<(), KafkaError> {
        let OutgoingRecord {
            topic,
            key,
            headers,
            value,
        } = record;
        let mut is_alone = false;
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
            let producer = match self.producer(is_alone) {
                Ok(producer) => producer,
                Err(error) => {
                    self.report_retry(topic, &error);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            match producer.send(record, Timeout::Never).await {
                Ok(_) => {
                    self.set_denied(topic, false);
                    return Ok(());
                }
                Err((error, _)) => {
                    // An idempotent producer that may not write at all fails as a whole, with the reason apart.
                    let fatal = producer.client().fatal_error().map(|(code, _)| code);
                    let is_denied = is_denial(&error) || fatal.is_some_and(is_denial_code);
                    self.set_denied(topic, is_denied);
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                        if is_alone {
                            self.metrics.count_error(FailedOperation::Write);
                            return Err(error);
                        }
                        // Its batch was larger than the topic takes; the record itself may not be.
                        is_alone = true;
                        continue;
                    }
                    self.report_retry(topic, &error);
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                        self.forget(&producer);
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
        if let Some(answer) = &error.answer {
            let answer = answer.clone().into_bytes();
            headers.push(("intentd-sink-answer".to_owned(), answer));
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

    /// Whether brokers deny writing, as far as is known.
    pub(super) fn is_denied(&self) -> bool {
        !self.locked_denied().is_empty()
    }

    fn set_denied(&self, topic: &str, is_denied: bool) {
        let mut denied = self.locked_denied();
        if is_denied {
            denied.insert(topic.to_owned());
        } else if !denied.is_empty() {
            denied.remove(topic);
        }
    }

    fn locked_denied(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_retry(&self, topic: &str, error: &KafkaError) {
        self.metrics.count_error(FailedOperation::Write);
        if let Some(times) = self.retry_log.event() {
            tracing::error!(%error, topic, times, "a record cannot be written; it is tried again");
        }
    }

    /// The producer for batches, or the one for records that are sent alone.
    fn producer(&self, is_alone: bool) -> Result<Producer, KafkaError> {
        let slot = if is_alone {
            &self.single
        } else {
            &self.producer
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let mut settings = self.settings.clone();
        if is_alone {
            settings
                .set("batch.num.messages", "1")
                .set("linger.ms", "0");
        }
        let producer: Producer = settings.create_with_context(WriterContext)?;
        Ok(slot.insert(producer).clone())
    }

    /// Forgets a producer that has failed for good, so that the next record gets a new one.
    fn forget(&self, failed: &Producer) {
        for slot in [&self.producer, &self.single] {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same = |found: &Producer| std::ptr::eq(found.client(), failed.client());
            if slot.as_ref().is_some_and(is_same) {
                *slot = None;
            }
        }
    }
}

struct WriterContext;

impl ClientContext for WriterContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The reader has the same brokers and reports them; a write that fails is reported where it is tried again.
        tracing::debug!(%error, reason, "Kafka, writing");
    }
}
