//! Measures the lag of reading once a second.
//!
//! It asks the brokers, because the watermarks that come with fetches do not advance while reading pauses.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::callbacks::ReaderContext;
use super::metrics::FailedOperation;
use super::partition::Partition;
use super::state::{LogArrivals, ReaderState, RecordHandler};

/// Interval of measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time for one response of a broker.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Measures the lag until the reader stops.
pub(super) fn track<H: RecordHandler>(
    consumer: &BaseConsumer<ReaderContext<H>>,
    state: &ReaderState<H>,
    topic: &str,
) {
    let mut published = HashSet::new();
    while state.sleep(INTERVAL) {
        let partitions = state.partitions.all();
        if state.is_denied() {
            // The next commit shows whether access is granted again, also where nothing arrives.
            state.partitions.commit_again();
        }
        let (written, is_answered) = measure(consumer, state, &partitions, topic);
        state.metrics.connected.set(i64::from(is_answered));
        state.metrics.partitions.set(partitions.len() as i64);
        let unread = publish(state, &partitions, &mut published);
        state.handler.observe(LogArrivals { written, unread });
    }
    // Another member has what is left by the time that the metrics are read.
    publish(state, &[], &mut published);
    state.handler.observe(LogArrivals::default());
}

/// Measures the end of each partition. Returns the sum of their growth, and whether brokers answer.
fn measure<H: RecordHandler>(
    consumer: &BaseConsumer<ReaderContext<H>>,
    state: &ReaderState<H>,
    partitions: &[Arc<Partition>],
    topic: &str,
) -> (u64, bool) {
    let mut grown = 0;
    for partition in partitions {
        let error = match measure_end(consumer, state, partition) {
            Ok(more) => {
                grown += more;
                continue;
            }
            Err(error) => error,
        };
        state.metrics.count_error(FailedOperation::Read);
        if is_gone(&error) {
            partition.forget_end();
            if let Some(times) = state.log.gone.event() {
                let (topic, partition) = (&*partition.topic, partition.number);
                tracing::warn!(%error, topic, partition, times, "a partition that was read is gone");
            }
        }
        tracing::debug!(%error, topic = &*partition.topic, "the lag is not known");
        if is_no_response(&error) {
            // The other requests would time out as well.
            return (grown, false);
        }
    }
    // A member without partitions has to ask for something else.
    let is_answered =
        !partitions.is_empty() || consumer.fetch_metadata(Some(topic), TIMEOUT).is_ok();
    (grown, is_answered)
}

/// Whether there is no such topic or partition any more.
fn is_gone(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn is_no_response(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
        )
    )
}

/// Publishes the lag; returns the number of unread records.
fn publish<H: RecordHandler>(
    state: &ReaderState<H>,
    partitions: &[Arc<Partition>],
    published: &mut HashSet<(String, String)>,
) -> u64 {
    let number = |records: u64| i64::try_from(records).unwrap_or(i64::MAX);
    let (mut unread, mut unfinished, mut oldest) = (0, 0, None);
    let mut labels = HashSet::new();
    for partition in partitions {
        let Some(lag) = partition.lag() else {
            continue;
        };
        unread += lag.unread;
        unfinished += lag.unfinished;
        let first = partition.ledger().oldest();
        oldest = [oldest, first].into_iter().flatten().min();
        let label = (partition.topic.to_string(), partition.number.to_string());
        let gauge = state.metrics.lag.with_label_values(&[&label.0, &label.1]);
        gauge.set(number(lag.unfinished));
        labels.insert(label);
    }
    for (topic, partition) in published.difference(&labels) {
        // The label exists, because the last measurement set it.
        let _ = state.metrics.lag.remove_label_values(&[topic, partition]);
    }
    *published = labels;
    state.metrics.lag_total.set(number(unfinished));
    state.metrics.lag_seconds.set(oldest.map_or(0.0, age));
    unread
}

/// Measures the end of a partition; returns its growth.
fn measure_end<H: RecordHandler>(
    consumer: &BaseConsumer<ReaderContext<H>>,
    state: &ReaderState<H>,
    partition: &Arc<Partition>,
) -> Result<u64, KafkaError> {
    let (topic, number) = (&*partition.topic, partition.number);
    let (low, high) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
    if !partition.has_start() {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, number);
        let committed = consumer.committed_offsets(list, TIMEOUT)?;
        let committed = committed.elements().first().map(|element| element.offset());
        partition.set_start(match committed {
            Some(Offset::Offset(next)) => next,
            _ => low,
        });
    }
    let mut removed = partition.removed_below(low) + partition.start_within(low, high);
    if low == high && !state.is_paused.load(Ordering::Relaxed) {
        // Nothing is left that could be read, so that no record would ever move the group's offset.
        removed += partition.skip_to(high);
    } else {
        partition.has_records();
    }
    if removed > 0 {
        state.metrics.expired.inc_by(removed);
        if let Some(times) = state.log.expired.event() {
            tracing::warn!(
                topic,
                partition = number,
                removed,
                times,
                "records were removed by retention before they were read"
            );
        }
    }
    Ok(partition.set_end(high))
}

/// The age in seconds of a record that was written at this time, in milliseconds since 1970.
fn age(written: i64) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    (now - written as f64 / 1e3).max(0.0)
}
