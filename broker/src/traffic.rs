//! Records in and out of a broker, for tests and what they assert.
//!
//! Each call is a client of its own, as any other: it goes through the gate, it meets errors that a
//! test has ordered, and it waits while the broker is down, for as long as is said below.

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

/// How long the broker has to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long the broker has to acknowledge a record.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// How often a producer takes what has become of its records; its `poll` always takes that long.
const REPORTS_EVERY: Duration = Duration::from_millis(2);

/// The group of those that read without one: librdkafka wants a name, nobody joins it.
const NO_GROUP: &str = "intentd-broker";

/// A record to produce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// What decides the partition, where `partition` does not.
    pub key: Option<Vec<u8>>,
    /// The contents; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// The partition, or the producer's choice.
    pub partition: Option<i32>,
}

/// A header's name and value, which may be null.
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

    /// The same with a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// The same for this partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A record as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The partition.
    pub partition: i32,
    /// The place in the partition.
    pub offset: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The contents; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
}

impl Stored {
    /// The value of the first header of this name that has one.
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
    /// Produces `records` in order, waits at most a minute for the last acknowledgement, and says
    /// how many there were. They are compressed as [`Settings::compression`](crate::Settings) says.
    ///
    /// # Errors
    /// See [`BrokerError`]; some of the records may be there all the same.
    pub fn produce(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<u64, BrokerError> {
        let mut config = self.client_config();
        config
            // One request at a time keeps the order as an idempotent producer would, which would
            // first wait 0.5 s for its number; the mock does not look for duplicates in either case.
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

    /// Reads a topic from its first record to where it ends at the time of the call, without a
    /// group; by partition and offset.
    ///
    /// # Errors
    /// See [`BrokerError`]; it is [`BrokerError::Late`] when `within` has passed.
    pub fn consume_all(&self, topic: &str, within: Duration) -> Result<Vec<Stored>, BrokerError> {
        let mut read = self.ask(NO_GROUP, |consumer| consume_all(consumer, topic, within))?;
        read.sort_by_key(|record| (record.partition, record.offset));
        Ok(read)
    }

    /// Where each partition begins: not at 0 when the broker has dropped its oldest records.
    ///
    /// # Errors
    /// See [`BrokerError`]; no answer in 10 s is one.
    pub fn low_watermarks(&self, topic: &str) -> Result<Vec<i64>, BrokerError> {
        let marks = self.ask(NO_GROUP, |consumer| watermarks(consumer, topic))?;
        Ok(marks.into_iter().map(|(low, _)| low).collect())
    }

    /// Where each partition ends: the offset of the record to come.
    ///
    /// # Errors
    /// See [`BrokerError`]; no answer in 10 s is one.
    pub fn high_watermarks(&self, topic: &str) -> Result<Vec<i64>, BrokerError> {
        let marks = self.ask(NO_GROUP, |consumer| watermarks(consumer, topic))?;
        Ok(marks.into_iter().map(|(_, high)| high).collect())
    }

    /// What `group` has committed in each partition: the offset of the record it reads next. The
    /// group is not joined.
    ///
    /// # Errors
    /// See [`BrokerError`]; no answer in 10 s is one.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, BrokerError> {
        self.ask(group, |consumer| committed(consumer, topic))
    }

    /// Asks by a consumer made for it. `group` is not joined.
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
        self.leaving.see_off(consumer);
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
    for (partition, (low, high)) in (0..).zip(watermarks(consumer, topic)?) {
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
            // What librdkafka gets over by itself is reported, too: time tells.
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
        // They are numbered from 0 on.
        for partition in found.partitions() {
            count = count.max(partition.id() + 1);
        }
    }
    Ok(count)
}

fn watermarks(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i64, i64)>, BrokerError> {
    let ask = |partition| consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN);
    let marks: Result<_, KafkaError> = (0..partitions(consumer, topic)?).map(ask).collect();
    Ok(marks?)
}

/// Gives a record to the producer, which waits for room if need be.
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

/// Counts acknowledgements.
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
