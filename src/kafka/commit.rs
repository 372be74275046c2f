//! Commits the offsets of finished records.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::metrics::FailedOperation;
use super::state::{ReaderState, RecordHandler};

/// Interval of commits when few records are finished.
const COMMIT: Duration = Duration::from_secs(1);

/// Commits once per [`COMMIT`] interval, and earlier if the number of finished records reaches the in-flight limit. So
/// a process that dies leaves at most a few times that number to be repeated.
///
/// Runs on a thread of its own that waits for each commit. librdkafka would report the outcome of an asynchronous
/// commit only after all the records that it has fetched.
pub(super) fn keep_committing<C, H>(consumer: &BaseConsumer<C>, state: &ReaderState<H>)
where
    C: ConsumerContext,
    H: RecordHandler,
{
    while state.wait(COMMIT, || {
        state.finished.load(Ordering::Relaxed) < state.in_flight_max()
    }) {
        commit(consumer, state);
    }
}

/// Commits what is finished; returns when the brokers have confirmed or refused it.
pub(super) fn commit<C, H>(consumer: &BaseConsumer<C>, state: &ReaderState<H>)
where
    C: ConsumerContext,
    H: RecordHandler,
{
    let one = state.committing.lock();
    let one = one.unwrap_or_else(PoisonError::into_inner);
    let finished = state.finished.load(Ordering::Relaxed);
    state.unconfirmed.fetch_add(finished, Ordering::Relaxed);
    state.finished.fetch_sub(finished, Ordering::Relaxed);
    let is_confirmed = match state.partitions.take_due() {
        // What is finished lies behind records that are not: the ledgers count those.
        None => true,
        Some(due) => match consumer.commit(&due, CommitMode::Sync) {
            Ok(()) => {
                state.note_access();
                true
            }
            Err(error) => {
                report(state, &error, &due);
                // The others are committed: reading goes on for them.
                is_of_one_partition(&error)
            }
        },
    };
    if is_confirmed {
        state.unconfirmed.store(0, Ordering::Relaxed);
    }
    drop(one);
}

/// Whether an error concerns a partition and not the group. librdkafka reports it for all that were to be committed.
fn is_of_one_partition(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn report<H: RecordHandler>(state: &ReaderState<H>, error: &KafkaError, due: &TopicPartitionList) {
    state.note_denial(error);
    state.metrics.count_error(FailedOperation::Commit);
    if let Some(times) = state.log.commit.event() {
        tracing::warn!(%error, times, "offsets were not committed; they will be with the next ones");
    }
    state.partitions.put_back(due);
}
