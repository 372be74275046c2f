//! How far reading is behind, looked at once a second.
//!
//! Brokers are asked, since what fetches bring along stands still while reading pauses.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::callbacks::Context;
use super::metrics::Trouble;
use super::partition::Partition;
use super::settings::Start;
use super::state::{Handler, State};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Time for one answer of a broker's.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Looks until the reader stops.
pub(super) fn follow<H: Handler>(
    consumer: &BaseConsumer<Context<H>>,
    state: &State<H>,
    (topic, start): (&str, Start),
) {
    let mut known = HashSet::new();
    while state.sleep(LOOK) {
        let partitions = state.partitions.all();
        let (grown, is_answered) = ask(consumer, state, &partitions, (topic, start));
        state.metrics.connected.set(i64::from(is_answered));
        state.metrics.partitions.set(partitions.len() as i64);
        let unread = publish(state, &partitions, &mut known);
        state.handler.see(grown, unread);
    }
    // What is left is another's by the time that anybody looks.
    publish(state, &[], &mut known);
    state.handler.see(0, 0);
}

/// Asks where each partition ends: by how much all have grown, and whether brokers answer.
fn ask<H: Handler>(
    consumer: &BaseConsumer<Context<H>>,
    state: &State<H>,
    partitions: &[Arc<Partition>],
    (topic, start): (&str, Start),
) -> (u64, bool) {
    let mut grown = 0;
    for partition in partitions {
        let error = match look(consumer, partition, start) {
            Ok(more) => {
                grown += more;
                continue;
            }
            Err(error) => error,
        };
        state.metrics.fail(Trouble::Read);
        tracing::debug!(%error, topic = &*partition.topic, "the lag is not known");
        if is_silence(&error) {
            // The others would take as long to say nothing.
            return (grown, false);
        }
    }
    // Somebody without partitions has to ask for something else.
    let is_answered =
        !partitions.is_empty() || consumer.fetch_metadata(Some(topic), TIMEOUT).is_ok();
    (grown, is_answered)
}

fn is_silence(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
        )
    )
}

/// Publishes what is behind; how many records nobody has read.
fn publish<H: Handler>(
    state: &State<H>,
    partitions: &[Arc<Partition>],
    known: &mut HashSet<(String, String)>,
) -> u64 {
    let number = |records: u64| i64::try_from(records).unwrap_or(i64::MAX);
    let (mut unread, mut unfinished, mut oldest) = (0, 0, None);
    let mut labels = HashSet::new();
    for partition in partitions {
        let Some((behind, open)) = partition.lag() else {
            continue;
        };
        unread += behind;
        unfinished += open;
        let first = partition.ledger().oldest();
        oldest = [oldest, first].into_iter().flatten().min();
        let label = (partition.topic.to_string(), partition.number.to_string());
        let lag = state.metrics.lag.with_label_values(&[&label.0, &label.1]);
        lag.set(number(open));
        labels.insert(label);
    }
    for (topic, partition) in known.difference(&labels) {
        // It is there: it was set at the last look.
        let _ = state.metrics.lag.remove_label_values(&[topic, partition]);
    }
    *known = labels;
    state.metrics.lag_total.set(number(unfinished));
    state.metrics.lag_seconds.set(oldest.map_or(0.0, age));
    unread
}

/// Sets the end of the partition as it is now; by how much it has grown.
fn look<H: Handler>(
    consumer: &BaseConsumer<Context<H>>,
    partition: &Arc<Partition>,
    start: Start,
) -> Result<u64, KafkaError> {
    let (topic, number) = (&*partition.topic, partition.number);
    let (low, high) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
    if partition.start().is_none() {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, number);
        let committed = consumer.committed_offsets(list, TIMEOUT)?;
        let committed = committed.elements().first().map(|element| element.offset());
        partition.set_start(match committed {
            // What retention has deleted nobody will read.
            Some(Offset::Offset(next)) => next.max(low),
            _ if start == Start::Latest => {
                // Whoever gets the partition next begins here as well, and not at an end that has moved.
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(topic, number, Offset::Offset(high))?;
                consumer.commit(&list, CommitMode::Async)?;
                high
            }
            _ => low,
        });
    }
    Ok(partition.set_end(high))
}

/// Seconds since a time in milliseconds since 1970.
fn age(written: i64) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    (now - written as f64 / 1e3).max(0.0)
}
