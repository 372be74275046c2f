//! Where a group that has read nothing begins (`--kafka-start latest`).
//!
//! librdkafka's own setting would also apply where retention has passed the group's offset, and to partitions that are
//! added later: records that nobody has read would be skipped. So the ends of all partitions of a topic are committed when
//! the group has no offset in any of them, and every later reset goes to the earliest record. This happens before the
//! process joins the group; and when it gets partitions, for a topic that is new to a group with members, from which
//! brokers take commits of members only.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Time for one response of a broker.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Commits the ends of topics of which the group has read nothing, if brokers let a process do so that is no member.
///
/// # Errors
/// When brokers do not say where the group and the topics are.
pub(super) fn commit_ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
) -> Result<(), KafkaError> {
    let ends = ends_of_unread(consumer, topics)?;
    if ends.count() == 0 {
        return Ok(());
    }
    match consumer.commit(&ends, CommitMode::Sync) {
        Ok(()) => tracing::info!(
            ?topics,
            "the group has read nothing: it begins at the end (--kafka-start latest)"
        ),
        // The group has members.
        Err(error) => tracing::debug!(%error, "the ends are committed later"),
    }
    Ok(())
}

/// Moves those of the partitions in `list` to their ends whose topic is one of `topics` and unread, and commits that as a
/// member.
pub(super) fn move_to_ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
    list: &mut TopicPartitionList,
) {
    if topics.is_empty() {
        return;
    }
    let moved = ends_of_unread(consumer, topics).and_then(|ends| {
        for end in ends.elements() {
            // An error is a partition that another member has.
            let _ = list.set_partition_offset(end.topic(), end.partition(), end.offset());
        }
        match ends.count() {
            0 => Ok(()),
            _ => consumer.commit(&ends, CommitMode::Sync),
        }
    });
    if let Err(error) = moved {
        tracing::warn!(%error, "the group may begin at the earliest record (--kafka-start latest)");
    }
}

/// The ends of all partitions of those topics in which the group has no offset.
fn ends_of_unread<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
) -> Result<TopicPartitionList, KafkaError> {
    let mut ends = TopicPartitionList::new();
    for topic in topics {
        let partitions = partitions(consumer, topic)?;
        let committed = consumer.committed_offsets(partitions.clone(), TIMEOUT)?;
        let has_read = |offset| matches!(offset, Offset::Offset(_));
        let mut committed = committed.elements().into_iter();
        if committed.any(|found| has_read(found.offset())) {
            continue;
        }
        for partition in partitions.elements() {
            let number = partition.partition();
            let (_, end) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
            ends.add_partition_offset(topic, number, Offset::Offset(end))?;
        }
    }
    Ok(ends)
}

/// All partitions of a topic.
fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<TopicPartitionList, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for found in metadata.topics() {
        for partition in found.partitions() {
            list.add_partition(topic, partition.id());
        }
    }
    Ok(list)
}
