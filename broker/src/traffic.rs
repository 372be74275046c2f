//! Writes and reads records and offsets, for tests and their assertions.
//!
//! Each call creates a client of its own. Like any other client, it passes the gate, receives injected errors, and
//! waits while the broker is down, up to the limits below.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::{Broker, BrokerError};

/// Time for the broker to answer a request.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Time for the broker to acknowledge a record.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// Duration of a producer's `poll` for delivery reports.
const REPORTS_EVERY: Duration = Duration::from_millis(2);

/// The group name of clients that read without a group. librdkafka requires a name; no client joins the group.
const NO_GROUP: &str = "intentd-broker";

/// A record to produce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The key, which selects the partition unless `partition` does.
    pub key: Option<Vec<u8>>,
    /// The value; `None` makes the record a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// The partition; the producer chooses when `None`.
    pub partition: Option<i32>,
}

/// A header's name and value. The value may be null.
pub type Header = (String, Option<Vec<u8>>);

impl Record {
    /// A record without key or headers.
    #[must_use]
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A record that the broker has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` makes the record a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

impl Stored {
    /// The first value that is not null of headers with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut named = self.headers.iter().filter(|(found, _)| found == name);
        named.find_map(|(_, value)| value.as_deref())
    }
}

impl From<&BorrowedMessage<'_>> for Stored {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let mut headers = Vec::new();
        if let Some(found) = message.headers() {
            for header in found.iter() {
                headers.push((header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
            }
        }
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

impl Broker {
    /// Produces `records` in order, waits at most a minute for the last acknowledgement, and returns
    /// their number. They are compressed by [`Settings::compression`](crate::Settings).
    ///
    /// # Errors
    /// See [`BrokerError`]; some of the records may have been stored.
    pub fn produce(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<u64, BrokerError> {
        let mut config = self.client_config();
        config
            // One request at a time keeps the order, as an idempotent producer does. That would first wait
            // 0.5 s for its id, and the mock does not detect duplicates anyway.
            .set("max.in.flight.requests.per.connection", "1")
            .set("compression.type", self.compression.name())
            .set("linger.ms", "5")
            .set(
                "message.timeout.ms",
                ACKNOWLEDGED_WITHIN.as_millis().to_string(),
            );
        let producer: BaseProducer<Deliveries> =
            config.create_with_context(Deliveries::default())?;
        let mut sent = 0;
        for record in records {
            send(&producer, topic, &record)?;
            sent += 1;
        }
        // Each record is acknowledged or fails in time.
        while producer.in_flight_count() > 0 {
            producer.poll(REPORTS_EVERY);
        }
        let deliveries = producer.context();
        let acknowledged = deliveries.acknowledged.load(Ordering::Relaxed);
        if acknowledged == sent {
            return Ok(sent);
        }
        let failure = deliveries.failure.lock();
        Err(BrokerError::Unacknowledged {
            acknowledged,
            sent,
            first: failure.unwrap_or_else(PoisonError::into_inner).take(),
        })
    }

    /// Reads a topic from its first record to its present end, without a group. The result is sorted by partition
    /// and offset.
    ///
    /// # Errors
    /// See [`BrokerError`]; [`BrokerError::Late`] when `within` has passed.
    pub fn consume_all(&self, topic: &str, within: Duration) -> Result<Vec<Stored>, BrokerError> {
        let mut read = self.ask(NO_GROUP, |consumer| consume_all(consumer, topic, within))?;
        read.sort_by_key(|record| (record.partition, record.offset));
        Ok(read)
    }

    /// The first offset of each partition. It is above 0 when the broker has dropped the oldest records.
    ///
    /// # Errors
    /// See [`BrokerError`]; also when there is no answer in 10 s.
    pub fn low_watermarks(&self, topic: &str) -> Result<Vec<i64>, BrokerError> {
        let marks = self.ask(NO_GROUP, |consumer| watermarks(consumer, topic))?;
        Ok(marks.into_iter().map(|marks| marks.low).collect())
    }

    /// The end of each partition: the offset of the next record.
    ///
    /// # Errors
    /// See [`BrokerError`]; also when there is no answer in 10 s.
    pub fn high_watermarks(&self, topic: &str) -> Result<Vec<i64>, BrokerError> {
        let marks = self.ask(NO_GROUP, |consumer| watermarks(consumer, topic))?;
        Ok(marks.into_iter().map(|marks| marks.high).collect())
    }

    /// The committed offset of `group` in each partition: the offset of the record it reads next. Does not join
    /// the group.
    ///
    /// # Errors
    /// See [`BrokerError`]; also when there is no answer in 10 s.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, BrokerError> {
        self.ask(group, |consumer| committed(consumer, topic))
    }

    /// Asks a question with a new consumer, which does not join `group`.
    fn ask<T>(
        &self,
        group: &str,
        question: impl FnOnce(&BaseConsumer) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let mut config = self.client_config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.create()?;
        let answer = question(&consumer);
        self.ending.end(consumer);
        answer
    }
}

fn committed(consumer: &BaseConsumer, topic: &str) -> Result<Vec<Option<i64>>, BrokerError> {
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions(consumer, topic)? {
        asked.add_partition(topic, partition);
    }
    let answer = consumer.committed_offsets(asked, ANSWER_WITHIN)?;
    let mut committed = Vec::new();
    for partition in answer.elements_for_topic(topic) {
        partition.error()?;
        committed.push(match partition.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
    }
    Ok(committed)
}

fn consume_all(
    consumer: &BaseConsumer,
    topic: &str,
    within: Duration,
) -> Result<Vec<Stored>, BrokerError> {
    let deadline = Instant::now() + within;
    let mut expected = 0;
    let mut ends = BTreeMap::new();
    let mut beginnings = TopicPartitionList::new();
    for (partition, Watermarks { low, high }) in (0..).zip(watermarks(consumer, topic)?) {
        if low < high {
            expected += high - low;
            ends.insert(partition, high);
            beginnings.add_partition_offset(topic, partition, Offset::Offset(low))?;
        }
    }
    consumer.assign(&beginnings)?;
    let (mut read, mut last) = (Vec::new(), None);
    while !ends.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(BrokerError::Late {
                read: read.len(),
                expected,
                within,
                last,
            });
        }
        match consumer.poll(left) {
            None => {}
            // librdkafka also reports errors from which it recovers; only the deadline decides.
            Some(Err(error)) => last = Some(error),
            Some(Ok(message)) => {
                let end = ends.get(&message.partition()).copied().unwrap_or(0);
                if message.offset() < end {
                    read.push(Stored::from(&message));
                }
                if message.offset() + 1 >= end {
                    ends.remove(&message.partition());
                }
            }
        }
    }
    Ok(read)
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<i32, BrokerError> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let mut count = 0;
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            return Err(KafkaError::MetadataFetch(error.into()).into());
        }
        // Partitions are numbered from 0.
        for partition in found.partitions() {
            count = count.max(partition.id() + 1);
        }
    }
    Ok(count)
}

/// The first offset and the end of a partition.
struct Watermarks {
    low: i64,
    high: i64,
}

fn watermarks(consumer: &BaseConsumer, topic: &str) -> Result<Vec<Watermarks>, BrokerError> {
    let ask = |partition| {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
        Ok(Watermarks { low, high })
    };
    let marks: Result<_, KafkaError> = (0..partitions(consumer, topic)?).map(ask).collect();
    Ok(marks?)
}

/// Gives a record to the producer; waits while its queue is full.
fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    record: &Record,
) -> Result<(), KafkaError> {
    let mut ours = BaseRecord::<[u8], [u8]>::to(topic);
    ours.key = record.key.as_deref();
    ours.payload = record.value.as_deref();
    ours.partition = record.partition;
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            let value = value.as_deref();
            headers = headers.insert(rdkafka::message::Header { key, value });
        }
        ours.headers = Some(headers);
    }
    loop {
        match producer.send(ours) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(REPORTS_EVERY);
                ours = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Counts acknowledgements, and keeps the first failure.
#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}
