//! Topics that records are written to: predictions and dead letters.

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
use super::metrics::{KafkaMetrics, Trouble};
use super::record::Record;
use super::settings::Connection;
use crate::seldom::Seldom;

/// Pause before a record that was not taken is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// Writes records until brokers have them.
pub(super) struct Outlet {
    settings: ClientConfig,
    metrics: KafkaMetrics,
    producer: Mutex<Producer>,
    said: Seldom,
    lost: Seldom,
}

type Producer = FutureProducer<OutletContext>;

/// What is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letter<'a> {
    pub(super) topic: &'a str,
    pub(super) key: Option<&'a [u8]>,
    pub(super) headers: &'a [(String, Vec<u8>)],
    pub(super) value: Option<&'a [u8]>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl Outlet {
    pub(super) fn new(connection: &Connection, metrics: KafkaMetrics) -> Result<Self, ClientError> {
        let settings = producer_settings(connection)?;
        let producer = settings.create_with_context(OutletContext::default())?;
        Ok(Self {
            settings,
            metrics,
            producer: Mutex::new(producer),
            said: Seldom::new(),
            lost: Seldom::new(),
        })
    }

    /// Writes a record; ready when brokers have it, however long that takes.
    ///
    /// # Errors
    /// When no broker will ever take it: it is too large.
    pub(super) async fn write(&self, letter: Letter<'_>) -> Result<(), KafkaError> {
        let Letter {
            topic,
            key,
            headers,
            value,
        } = letter;
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
                    self.metrics.fail(Trouble::Write);
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                        return Err(error);
                    }
                    if let Some(times) = self.said.now() {
                        tracing::error!(%error, topic, times, "a record cannot be written; it is tried again");
                    }
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                        self.renew(&producer);
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Writes a record as it was read, with the reason why nothing came of it: a word and a sentence. One that is
    /// too large for that loses its value and its headers; the place where it is can be read in ours.
    pub(super) async fn write_dead_letter(
        &self,
        topic: &str,
        record: &Record,
        (kind, reason): (&str, &str),
    ) {
        let headers = record.headers.iter();
        let mut headers: Vec<_> = headers
            .map(|(name, value)| (name.clone(), value.to_vec()))
            .collect();
        for (name, value) in [
            ("intentd-error-type", kind.to_owned()),
            ("intentd-error", reason.to_owned()),
            ("intentd-topic", record.partition.topic.to_string()),
            ("intentd-partition", record.partition.number.to_string()),
            ("intentd-offset", record.offset.to_string()),
        ] {
            headers.push((name.to_owned(), value.into_bytes()));
        }
        let letter = Letter {
            topic,
            key: record.key.as_deref(),
            headers: &headers,
            value: record.value.as_deref(),
        };
        if self.write(letter).await.is_err() {
            let ours = &headers[record.headers.len()..];
            let bare = Letter {
                key: None,
                headers: ours,
                value: None,
                ..letter
            };
            if let Err(error) = self.write(bare).await
                && let Some(times) = self.lost.now()
            {
                tracing::error!(%error, %record, times, "not even the reason can be written");
            }
        }
    }

    fn producer(&self) -> Producer {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        producer.clone()
    }

    /// A producer that has failed for good takes nothing any more; another begins anew.
    fn renew(&self, failed: &Producer) {
        use rdkafka::producer::Producer as _;
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = std::ptr::eq(producer.client(), failed.client());
        if is_same && let Ok(new) = self.settings.create_with_context(OutletContext::default()) {
            *producer = new;
        }
    }
}

#[derive(Default)]
struct OutletContext {
    said: Seldom,
}

impl ClientContext for OutletContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(times) = self.said.now() {
            tracing::warn!(%error, reason, times, "Kafka, writing");
        }
    }
}
