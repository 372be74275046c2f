//! An offset in a partition that may be unknown, shared between threads.

use std::sync::atomic::{AtomicI64, Ordering};

/// An optional offset. Kafka's offsets are never negative; a negative value stands for none.
#[derive(Debug)]
pub(super) struct AtomicOffset(AtomicI64);

const NONE: i64 = -1;

impl AtomicOffset {
    pub(super) const fn unset() -> Self {
        Self(AtomicI64::new(NONE))
    }

    pub(super) fn load(&self) -> Option<i64> {
        known(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn store(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }

    /// Stores an offset and returns the one before.
    pub(super) fn replace(&self, offset: i64) -> Option<i64> {
        known(self.0.swap(offset, Ordering::Relaxed))
    }

    pub(super) fn clear(&self) {
        self.store(NONE);
    }
}

fn known(offset: i64) -> Option<i64> {
    (offset >= 0).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_known_once_it_is_stored() {
        let offset = AtomicOffset::unset();
        assert_eq!(offset.load(), None);
        assert_eq!((offset.replace(0), offset.load()), (None, Some(0)));
        offset.store(7);
        assert_eq!((offset.replace(9), offset.load()), (Some(7), Some(9)));
        offset.clear();
        assert_eq!(offset.load(), None);
    }
}
