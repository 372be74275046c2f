//! The lag of a Kafka consumer group: records that it has not committed yet.
//!
//! librdkafka asks the brokers without joining the group, so its members are not affected.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::consumer_group::ConsumerGroup;

/// Reads the lag of one group on one topic.
#[derive(Debug)]
pub(super) struct LagReader {
    group: ConsumerGroup,
    timeout: Duration,
    consumer: Option<SharedConsumer>,
    /// librdkafka's calls block and cannot be cancelled. A late one is awaited by the next read.
    pending: Option<JoinHandle<Result<f64, String>>>,
}

/// A consumer that is used on blocking threads, one call at a time.
#[derive(Clone)]
struct SharedConsumer(Arc<Mutex<BaseConsumer>>);

impl std::fmt::Debug for SharedConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Consumer")
    }
}

impl LagReader {
    /// A reader whose calls to the brokers take at most `timeout` together.
    pub(super) fn new(group: ConsumerGroup, timeout: Duration) -> Self {
        Self {
            group,
            timeout,
            consumer: None,
            pending: None,
        }
    }

    /// The lag now: the sum over the partitions, in records.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) async fn lag(&mut self) -> Result<f64, String> {
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => {
                let consumer = self.consumer()?;
                let (group, timeout) = (self.group.clone(), self.timeout);
                tokio::task::spawn_blocking(move || {
                    let consumer = consumer.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let lag = lag(&consumer, &group.topic, Instant::now() + timeout);
                    lag.map_err(|error| error.to_string())
                })
            }
        };
        let pending = self.pending.insert(pending);
        let Ok(lag) = tokio::time::timeout(2 * self.timeout, pending).await else {
            return Err(format!("no answer within {:?}", 2 * self.timeout));
        };
        self.pending = None;
        lag.map_err(|error| error.to_string())?
    }

    fn consumer(&mut self) -> Result<SharedConsumer, String> {
        if let Some(consumer) = &self.consumer {
            return Ok(consumer.clone());
        }
        let mut settings = ClientConfig::new();
        for (key, value) in &self.group.settings {
            settings.set(key, value);
        }
        let made: Result<BaseConsumer, KafkaError> = settings
            .set("bootstrap.servers", &self.group.bootstrap)
            .set("group.id", &self.group.group)
            .set("enable.auto.commit", "false")
            .create();
        let made = made.map_err(|error| error.to_string())?;
        let consumer = SharedConsumer(Arc::new(Mutex::new(made)));
        self.consumer = Some(consumer.clone());
        Ok(consumer)
    }
}

impl Drop for LagReader {
    /// Drops the consumer on a blocking thread, since its drop waits for threads and brokers.
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(consumer)));
        }
    }
}

fn lag(consumer: &BaseConsumer, topic: &str, deadline: Instant) -> Result<f64, LagError> {
    // Nothing is consumed. Polling removes librdkafka's events (errors, statistics), which would accumulate.
    drop(consumer.poll(Duration::ZERO));
    // At least a millisecond: zero means "do not wait" to librdkafka.
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    };
    let metadata = consumer.fetch_metadata(Some(topic), left())?;
    let mut partitions = TopicPartitionList::new();
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            return Err(KafkaError::MetadataFetch(error.into()).into());
        }
        for partition in found.partitions() {
            partitions.add_partition(topic, partition.id());
        }
    }
    if partitions.count() == 0 {
        return Err(LagError::NoPartitions(topic.to_owned()));
    }
    let committed = consumer.committed_offsets(partitions, left())?;
    let mut sum = 0;
    for partition in committed.elements() {
        partition.error()?;
        let (low, high) = consumer.fetch_watermarks(topic, partition.partition(), left())?;
        let next = match partition.offset() {
            // Records that retention has deleted are not part of the lag.
            Offset::Offset(next) => next.max(low),
            _ => low,
        };
        sum += (high - next).max(0);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a lag beyond 2^53 records is as good as exact"
    )]
    Ok(sum as f64)
}

#[derive(Debug, thiserror::Error)]
enum LagError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("the topic {0:?} has no partitions")]
    NoPartitions(String),
}
