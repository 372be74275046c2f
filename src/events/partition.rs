//! The partitions that are assigned to this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ledger::Ledger;

/// A partition for as long as it is assigned: one that is taken away and comes back is another, so that what
/// is finished late does not count for it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    ledger: Mutex<Ledger>,
    /// What was committed last; below zero for nothing.
    committed: AtomicI64,
    /// Where reading begins, once that is known; below zero before.
    start: AtomicI64,
    /// The end of the partition when it was looked at last; below zero before.
    end: AtomicI64,
}

impl Partition {
    fn new(topic: &str, number: i32) -> Self {
        Self {
            topic: topic.into(),
            number,
            ledger: Mutex::new(Ledger::default()),
            committed: AtomicI64::new(-1),
            start: AtomicI64::new(-1),
            end: AtomicI64::new(-1),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where reading begins, once that is known.
    pub(super) fn start(&self) -> Option<i64> {
        known(&self.start)
    }

    pub(super) fn set_start(&self, offset: i64) {
        self.start.store(offset, Ordering::Relaxed);
    }

    /// Sets the end as it is now; by how much it has grown.
    pub(super) fn set_end(&self, end: i64) -> u64 {
        let before = self.end.swap(end, Ordering::Relaxed);
        let grown = if before < 0 { 0 } else { end - before };
        u64::try_from(grown).unwrap_or(0)
    }

    /// Records that are written and neither read nor finished: those that nobody has read, and all that are
    /// not finished. `None` before the end is known.
    pub(super) fn lag(&self) -> Option<(u64, u64)> {
        let end = known(&self.end)?;
        let (floor, next) = {
            let ledger = self.ledger();
            (ledger.floor(), ledger.next())
        };
        let start = self.start();
        let since = |offset: Option<i64>| u64::try_from(end - offset?).ok().or(Some(0));
        let unread = since(next.or(start))?;
        let unfinished = since(floor.or(start).or(next))?;
        Some((unread, unfinished.max(unread)))
    }

    /// What is to be committed, if anything is.
    fn due(&self) -> Option<i64> {
        let floor = self.ledger().floor()?;
        (floor > self.committed.load(Ordering::Relaxed)).then_some(floor)
    }
}

fn known(offset: &AtomicI64) -> Option<i64> {
    let offset = offset.load(Ordering::Relaxed);
    (offset >= 0).then_some(offset)
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Partitions(RwLock<HashMap<String, HashMap<i32, Arc<Partition>>>>);

impl Partitions {
    /// The partition of that name, if it is assigned.
    pub(super) fn get(&self, topic: &str, number: i32) -> Option<Arc<Partition>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic)?.get(&number).cloned()
    }

    /// All that are assigned.
    pub(super) fn all(&self) -> Vec<Arc<Partition>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().flat_map(HashMap::values).cloned().collect()
    }

    /// These are assigned from now on.
    pub(super) fn add(&self, list: &TopicPartitionList) {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for element in list.elements() {
            let (topic, number) = (element.topic(), element.partition());
            let partition = Arc::new(Partition::new(topic, number));
            topics
                .entry(topic.to_owned())
                .or_default()
                .insert(number, partition);
        }
    }

    /// This one begins anew, as if it had been taken away and come back.
    pub(super) fn renew(&self, topic: &str, number: i32) -> Arc<Partition> {
        let partition = Arc::new(Partition::new(topic, number));
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let partitions = topics.entry(topic.to_owned()).or_default();
        partitions.insert(number, Arc::clone(&partition));
        partition
    }

    /// The most records that any of them has begun and not committed.
    pub(super) fn longest(&self) -> usize {
        let partitions = self.all();
        let lengths = partitions.iter().map(|partition| partition.ledger().len());
        lengths.max().unwrap_or(0)
    }

    /// These are not any more.
    pub(super) fn remove(&self, list: &TopicPartitionList) {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for element in list.elements() {
            if let Some(partitions) = topics.get_mut(element.topic()) {
                partitions.remove(&element.partition());
            }
        }
    }

    /// Records of these partitions that are begun and not finished.
    pub(super) fn unfinished(&self, list: &TopicPartitionList) -> usize {
        let elements = list.elements();
        let found = elements
            .iter()
            .filter_map(|element| self.get(element.topic(), element.partition()));
        found.map(|partition| partition.ledger().len()).sum()
    }

    /// What is to be committed, and that it is now.
    pub(super) fn take_due(&self) -> Option<TopicPartitionList> {
        let mut due = TopicPartitionList::new();
        for partition in self.all() {
            let Some(floor) = partition.due() else {
                continue;
            };
            // The only error there could be is an offset below zero.
            if due
                .add_partition_offset(&partition.topic, partition.number, Offset::Offset(floor))
                .is_ok()
            {
                partition.committed.store(floor, Ordering::Relaxed);
            }
        }
        (due.count() > 0).then_some(due)
    }

    /// These were not committed after all.
    pub(super) fn put_back(&self, list: &TopicPartitionList) {
        for element in list.elements() {
            if let Some(partition) = self.get(element.topic(), element.partition()) {
                partition.committed.store(-1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(numbers: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for number in numbers {
            list.add_partition("ai-info", *number);
        }
        list
    }

    fn due(partitions: &Partitions) -> Vec<(i32, Offset)> {
        let due = partitions.take_due();
        let elements = due.iter().flat_map(|due| due.elements());
        elements
            .map(|element| (element.partition(), element.offset()))
            .collect()
    }

    #[test]
    fn what_is_finished_is_committed_once() {
        let partitions = Partitions::default();
        partitions.add(&list(&[0, 1]));
        let partition = partitions.get("ai-info", 1).unwrap();
        for offset in 0..3 {
            partition.ledger().begin(offset, None);
        }
        assert_eq!(
            (due(&partitions), partitions.unfinished(&list(&[0, 1]))),
            (vec![(1, Offset::Offset(0))], 3),
            "where reading began"
        );
        partition.ledger().finish(0);
        partition.ledger().finish(2);
        assert_eq!(due(&partitions), [(1, Offset::Offset(1))]);
        assert_eq!(due(&partitions), []);
        partitions.put_back(&list(&[1]));
        assert_eq!(due(&partitions), [(1, Offset::Offset(1))]);
    }

    #[test]
    fn a_partition_that_comes_back_is_another() {
        let partitions = Partitions::default();
        partitions.add(&list(&[0]));
        let before = partitions.get("ai-info", 0).unwrap();
        before.ledger().begin(5, None);
        partitions.remove(&list(&[0]));
        assert!(partitions.get("ai-info", 0).is_none());
        partitions.add(&list(&[0]));
        before.ledger().finish(5);
        assert_eq!(due(&partitions), []);
    }

    #[test]
    fn lag_counts_from_where_reading_is() {
        let partition = Partition::new("ai-info", 0);
        assert_eq!(partition.lag(), None);
        assert_eq!(partition.set_end(100), 0);
        assert_eq!(
            partition.lag(),
            None,
            "nobody knows yet where reading begins"
        );
        partition.set_start(40);
        assert_eq!(partition.lag(), Some((60, 60)));
        for offset in 40..50 {
            partition.ledger().begin(offset, None);
        }
        partition.ledger().finish(40);
        assert_eq!(partition.lag(), Some((50, 59)));
        assert_eq!(partition.set_end(130), 30);
        assert_eq!(partition.lag(), Some((80, 89)));
    }
}
