//! Where a group that has read nothing begins (`--kafka-start latest`).
//!
//! librdkafka's own setting would also apply where retention has passed the group's offset, and to partitions that are
//! added later. Records that nobody has read would be skipped. So a group without any offset commits the ends of all
//! partitions before it joins, and every later reset goes to the earliest record.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Time for one response of a broker.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Commits the ends of the topics' partitions, if the group has no offset in any of them.
///
/// # Errors
/// When brokers do not answer or refuse, such as a commit while the group has members. One of them has committed by the
/// next attempt.
pub(super) fn begin_at_the_ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
) -> Result<(), KafkaError> {
    let mut ends = TopicPartitionList::new();
    for topic in topics {
        let partitions = partitions(consumer, topic)?;
        let committed = consumer.committed_offsets(partitions.clone(), TIMEOUT)?;
        let has_read = |offset| matches!(offset, Offset::Offset(_));
        if committed
            .elements()
            .iter()
            .any(|found| has_read(found.offset()))
        {
            continue;
        }
        for partition in partitions.elements() {
            let number = partition.partition();
            let (_, end) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
            ends.add_partition_offset(topic, number, Offset::Offset(end))?;
        }
    }
    if ends.count() > 0 {
        consumer.commit(&ends, CommitMode::Sync)?;
        tracing::info!(
            ?topics,
            "the group has read nothing: it begins at the end (--kafka-start latest)"
        );
    }
    Ok(())
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
