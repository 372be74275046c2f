//! The offsets of one partition that are in flight, and the offset up to which all are finished.

use std::collections::VecDeque;

/// A record in flight.
#[derive(Debug, Clone, Copy)]
struct LedgerEntry {
    offset: i64,
    /// When it was written, in milliseconds since 1970, if the broker reports that.
    written: Option<i64>,
    is_finished: bool,
}

/// The offsets of one partition during one assignment.
///
/// Compacted and transactional topics have gaps between offsets. So the next offset is the next one delivered, not
/// the next number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In the order of delivery, which is the order of offsets.
    entries: VecDeque<LedgerEntry>,
    /// All records below this offset are finished.
    floor: Option<i64>,
    /// The last offset that was begun.
    last: Option<i64>,
}

impl Ledger {
    /// Adds a delivered record. Returns false and adds nothing if its offset does not follow those before.
    ///
    /// Reading begins at the first record, which is the floor until it is finished. A commit of that floor makes a
    /// restarted member begin there, regardless of where a group without a commit begins.
    pub(super) fn begin(&mut self, offset: i64, written: Option<i64>) -> bool {
        if self.last.is_some_and(|last| offset <= last) {
            return false;
        }
        self.floor.get_or_insert(offset);
        self.last = Some(offset);
        self.entries.push_back(LedgerEntry {
            offset,
            written,
            is_finished: false,
        });
        true
    }

    /// Everything before `offset` is finished: nothing is left there.
    pub(super) fn skip_to(&mut self, offset: i64) {
        self.floor = Some(offset);
        self.last = Some(offset - 1);
    }

    /// Marks a record as finished.
    pub(super) fn finish(&mut self, offset: i64) {
        let index = self.entries.partition_point(|entry| entry.offset < offset);
        if let Some(entry) = self.entries.get_mut(index)
            && entry.offset == offset
        {
            entry.is_finished = true;
        }
        while let Some(entry) = self.entries.front().filter(|entry| entry.is_finished) {
            self.floor = Some(entry.offset + 1);
            self.entries.pop_front();
        }
    }

    /// Whether every record before this one is finished.
    pub(super) fn is_first(&self, offset: i64) -> bool {
        self.entries
            .front()
            .is_none_or(|entry| entry.offset >= offset)
    }

    /// The offset to commit: all records before it are finished. `None` before the first record.
    pub(super) fn floor(&self) -> Option<i64> {
        self.floor
    }

    /// The offset after the last record.
    pub(super) fn next(&self) -> Option<i64> {
        self.last.map(|last| last + 1)
    }

    /// Records that cannot be committed: unfinished ones, and finished ones behind these.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the oldest unfinished record was written.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.entries.front()?.written
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_floor_waits_for_the_oldest() {
        let mut ledger = Ledger::default();
        assert_eq!((ledger.floor(), ledger.next()), (None, None));
        // Gaps, as in a compacted topic.
        for offset in [3, 7, 8, 20] {
            assert!(ledger.begin(offset, Some(offset * 10)));
        }
        assert_eq!((ledger.len(), ledger.oldest()), (4, Some(30)));
        ledger.finish(8);
        assert_eq!(ledger.floor(), Some(3), "where reading began");
        ledger.finish(3);
        assert_eq!((ledger.floor(), ledger.oldest()), (Some(4), Some(70)));
        ledger.finish(7);
        assert_eq!(ledger.floor(), Some(9));
        assert!(!ledger.begin(20, None) && !ledger.begin(4, None));
        ledger.finish(20);
        assert_eq!((ledger.floor(), ledger.next()), (Some(21), Some(21)));
        assert_eq!((ledger.len(), ledger.oldest()), (0, None));
    }

    #[test]
    fn an_unknown_offset_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.begin(5, None);
        for offset in [4, 6, 100] {
            ledger.finish(offset);
        }
        assert_eq!(ledger.floor(), Some(5));
    }

    proptest! {
        /// Compares with a list of unfinished offsets, for any gaps and order.
        #[test]
        fn the_floor_is_below_the_lowest_unfinished(
            gaps in prop::collection::vec(1..4_i64, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let mut ledger = Ledger::default();
            let offsets: Vec<i64> = gaps
                .iter()
                .scan(0, |offset, gap| {
                    *offset += gap;
                    Some(*offset)
                })
                .collect();
            for offset in &offsets {
                prop_assert!(ledger.begin(*offset, None));
            }
            let mut unfinished = offsets.clone();
            for index in order {
                let offset = *index.get(&offsets);
                ledger.finish(offset);
                unfinished.retain(|other| *other != offset);
                let before = |floor: i64| offsets.iter().filter(|o| **o < floor).max().copied();
                match (ledger.floor(), unfinished.first()) {
                    (None, first) => prop_assert_eq!(first, offsets.first()),
                    (Some(floor), Some(first)) => {
                        prop_assert!(floor <= *first);
                        prop_assert_eq!(before(floor), before(*first));
                    }
                    (Some(floor), None) => prop_assert_eq!(floor, offsets[offsets.len() - 1] + 1),
                }
            }
        }
    }
}
