//! The partitions that are assigned to this process.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::offset::AtomicOffset;

/// A partition for the time of one assignment. A partition that is revoked and assigned again gets a new value, so
/// that records that finish late do not count for it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    ledger: Mutex<Ledger>,
    /// The offset that was committed last.
    committed: AtomicOffset,
    /// The offset at which reading begins.
    start: AtomicOffset,
    /// The end of the partition at the last measurement.
    end: AtomicOffset,
    /// The largest range of offsets that was not delivered since the last measurement.
    gap: Mutex<Range<i64>>,
    /// Where reading stood when nothing was left to read.
    idle_at: AtomicOffset,
    /// Notified when a record is finished, and when the partition is revoked.
    advanced: Notify,
    is_revoked: AtomicBool,
}

impl Partition {
    fn new(topic: &str, number: i32) -> Self {
        Self {
            topic: topic.into(),
            number,
            ledger: Mutex::new(Ledger::default()),
            committed: AtomicOffset::unset(),
            start: AtomicOffset::unset(),
            end: AtomicOffset::unset(),
            gap: Mutex::default(),
            idle_at: AtomicOffset::unset(),
            advanced: Notify::new(),
            is_revoked: AtomicBool::new(false),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group's offset when the partition was assigned. Reading begins there.
    pub(super) fn set_start(&self, offset: i64) {
        self.start.store(offset);
    }

    /// Whether the start is known.
    pub(super) fn has_start(&self) -> bool {
        self.start.load().is_some() || self.ledger().next().is_some()
    }

    /// Corrects the start where nothing has been read yet and the partition, from `low` to `high`, has no such offset.
    /// Returns the records that retention has removed.
    pub(super) fn start_within(&self, low: i64, high: i64) -> u64 {
        let mut ledger = self.ledger();
        if ledger.next().is_some() {
            return 0;
        }
        match self.start.load() {
            Some(start) if start < low => {
                // Committed as well: it may be long until a record comes.
                ledger.skip_to(low);
                self.start.store(low);
                count(low - start)
            }
            Some(start) if start <= high => 0,
            // An offset of an earlier topic of this name.
            Some(_) => {
                self.start.store(low);
                0
            }
            None => 0,
        }
    }

    /// Finishes a record.
    pub(super) fn finish(&self, offset: i64) {
        self.ledger().finish(offset);
        self.advanced.notify_waiters();
    }

    /// Ready when every record before this one is finished. Returns false when the partition was revoked.
    pub(super) async fn turn(&self, offset: i64) -> bool {
        loop {
            let mut advanced = std::pin::pin!(self.advanced.notified());
            // Registered before the check, so that no notification is missed.
            advanced.as_mut().enable();
            if self.is_revoked() {
                return false;
            }
            if self.ledger().is_first(offset) {
                return true;
            }
            advanced.await;
        }
    }

    /// The partition is gone, so it has no lag.
    pub(super) fn forget_end(&self) {
        self.end.clear();
    }

    /// Adds a delivered record, as [`Ledger::begin`] does.
    pub(super) fn begin(&self, offset: i64, written: Option<i64>) -> bool {
        let mut ledger = self.ledger();
        let expected = ledger.next().or(self.start.load());
        let is_next = ledger.begin(offset, written);
        if let Some(expected) = expected
            && offset > expected
        {
            let mut gap = self.gap();
            if offset - expected > gap.end - gap.start {
                *gap = expected..offset;
            }
        }
        is_next
    }

    /// The undelivered records that retention has removed, where the first record that is left has the offset `low`.
    /// Other gaps are those of compaction and of transactions.
    pub(super) fn removed_below(&self, low: i64) -> u64 {
        let gap = std::mem::take(&mut *self.gap());
        count(gap.end.min(low) - gap.start)
    }

    /// Skips to the end of a partition that holds no record any more. Records that were fetched before may still arrive,
    /// so the partition has to be empty, and reading has to stand still, at two measurements in a row. Returns the number
    /// of offsets that were skipped.
    pub(super) fn skip_to(&self, end: i64) -> u64 {
        let mut ledger = self.ledger();
        let Some(next) = ledger
            .next()
            .or(self.start.load())
            .filter(|next| *next < end)
        else {
            return 0;
        };
        if self.idle_at.replace(next) != Some(next) || ledger.len() > 0 {
            return 0;
        }
        ledger.skip_to(end);
        count(end - next)
    }

    /// The partition holds records, so there is nothing to skip.
    pub(super) fn has_records(&self) {
        self.idle_at.clear();
    }

    /// Whether the partition was revoked, so that another member has its records.
    pub(super) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::Relaxed)
    }

    fn revoke(&self) {
        self.is_revoked.store(true, Ordering::Relaxed);
        self.advanced.notify_waiters();
    }

    fn gap(&self) -> MutexGuard<'_, Range<i64>> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the present end; returns the growth since the last measurement.
    pub(super) fn set_end(&self, end: i64) -> u64 {
        let grown = self.end.replace(end).map_or(0, |before| end - before);
        count(grown)
    }

    /// The lag of the partition. `None` before its end is known.
    pub(super) fn lag(&self) -> Option<PartitionLag> {
        let end = self.end.load()?;
        let (floor, next) = {
            let ledger = self.ledger();
            (ledger.floor(), ledger.next())
        };
        let start = self.start.load();
        let since = |offset: Option<i64>| u64::try_from(end - offset?).ok().or(Some(0));
        let unread = since(next.or(start))?;
        let unfinished = since(floor.or(start).or(next))?;
        Some(PartitionLag {
            unread,
            unfinished: unfinished.max(unread),
        })
    }

    /// The offset to commit, if it has advanced.
    fn due(&self) -> Option<i64> {
        let floor = self.ledger().floor()?;
        let committed = self.committed.load();
        committed
            .is_none_or(|committed| floor > committed)
            .then_some(floor)
    }
}

/// A number of offsets; 0 for a negative one.
fn count(offsets: i64) -> u64 {
    u64::try_from(offsets).unwrap_or(0)
}

/// How far reading is behind the end of a partition, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionLag {
    /// Records that are not read yet.
    pub(super) unread: u64,
    /// Records that are not finished, unread ones included.
    pub(super) unfinished: u64,
}

/// All assigned partitions, by topic and number.
#[derive(Debug, Default)]
pub(super) struct Partitions(RwLock<HashMap<String, HashMap<i32, Arc<Partition>>>>);

impl Partitions {
    /// The partition with this topic and number, if it is assigned.
    pub(super) fn get(&self, topic: &str, number: i32) -> Option<Arc<Partition>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic)?.get(&number).cloned()
    }

    /// All assigned partitions.
    pub(super) fn all(&self) -> Vec<Arc<Partition>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().flat_map(HashMap::values).cloned().collect()
    }

    /// Adds partitions that are now assigned.
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

    /// Sets where reading begins, by the offsets that the group has committed.
    pub(super) fn set_starts(&self, committed: &TopicPartitionList) {
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset()
                && let Some(partition) = self.get(element.topic(), element.partition())
            {
                partition.set_start(offset);
            }
        }
    }

    /// Starts a partition anew, as if it had been revoked and assigned again.
    pub(super) fn renew(&self, topic: &str, number: i32) -> Arc<Partition> {
        let partition = Arc::new(Partition::new(topic, number));
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let partitions = topics.entry(topic.to_owned()).or_default();
        if let Some(before) = partitions.insert(number, Arc::clone(&partition)) {
            before.revoke();
        }
        partition
    }

    /// The length of the longest ledger.
    pub(super) fn longest(&self) -> usize {
        let partitions = self.all();
        let lengths = partitions.iter().map(|partition| partition.ledger().len());
        lengths.max().unwrap_or(0)
    }

    /// Removes partitions that are no longer assigned.
    pub(super) fn remove(&self, list: &TopicPartitionList) {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for element in list.elements() {
            let found = topics.get_mut(element.topic());
            if let Some(partition) = found.and_then(|of| of.remove(&element.partition())) {
                partition.revoke();
            }
        }
    }

    /// The number of records of these partitions that are begun and not finished.
    pub(super) fn unfinished(&self, list: &TopicPartitionList) -> usize {
        let elements = list.elements();
        let found = elements
            .iter()
            .filter_map(|element| self.get(element.topic(), element.partition()));
        found.map(|partition| partition.ledger().len()).sum()
    }

    /// The offsets to commit; marks them as committed.
    pub(super) fn take_due(&self) -> Option<TopicPartitionList> {
        let mut due = TopicPartitionList::new();
        for partition in self.all() {
            let Some(floor) = partition.due() else {
                continue;
            };
            // The only possible error is a negative offset.
            if due
                .add_partition_offset(&partition.topic, partition.number, Offset::Offset(floor))
                .is_ok()
            {
                partition.committed.store(floor);
            }
        }
        (due.count() > 0).then_some(due)
    }

    /// Lets the next commit include every partition, whether or not it has advanced.
    pub(super) fn commit_again(&self) {
        for partition in self.all() {
            partition.committed.clear();
        }
    }

    /// Marks partitions as not committed, after a commit failed.
    pub(super) fn put_back(&self, list: &TopicPartitionList) {
        for element in list.elements() {
            if let Some(partition) = self.get(element.topic(), element.partition()) {
                partition.committed.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
