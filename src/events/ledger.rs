//! The offsets of one partition that are being worked on: up to where is everything finished?

use std::collections::VecDeque;

/// A record that was begun.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    /// When it was written, in milliseconds since 1970, if the broker says so.
    written: Option<i64>,
    is_finished: bool,
}

/// The offsets of one partition, for as long as it is assigned.
///
/// Offsets have gaps where a topic is compacted or transactional, so what comes next is what was delivered
/// next and not the next number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In the order of delivery, which is that of the offsets.
    entries: VecDeque<Entry>,
    /// The offset after the last one below which everything is finished.
    floor: Option<i64>,
    /// The last offset that was begun.
    last: Option<i64>,
}

impl Ledger {
    /// A record was delivered; false, and nothing else, when it does not follow those before.
    ///
    /// The first one is where reading begins, and is the floor until it is finished: what is committed then
    /// is where to begin again, whatever a group that has committed nothing does.
    pub(super) fn begin(&mut self, offset: i64, written: Option<i64>) -> bool {
        if self.last.is_some_and(|last| offset <= last) {
            return false;
        }
        self.floor.get_or_insert(offset);
        self.last = Some(offset);
        self.entries.push_back(Entry {
            offset,
            written,
            is_finished: false,
        });
        true
    }

    /// Nothing has to be done about a record any more.
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

    /// The offset that may be committed: everything before it is finished. `None` before the first.
    pub(super) fn floor(&self) -> Option<i64> {
        self.floor
    }

    /// The offset after the last record that was begun.
    pub(super) fn next(&self) -> Option<i64> {
        self.last.map(|last| last + 1)
    }

    /// Records that are begun and not finished, those that wait for one before them included.
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
    fn what_was_never_begun_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.begin(5, None);
        for offset in [4, 6, 100] {
            ledger.finish(offset);
        }
        assert_eq!(ledger.floor(), Some(5));
    }

    proptest! {
        /// Against a list of what is finished, whatever the gaps and the order.
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
