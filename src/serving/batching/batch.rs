//! A batch of texts, and how it is split when it fails.

use crate::engine::EngineError;
use crate::error::Refusal;
use crate::serving::queue::QueuedText;

/// Texts that are computed in one forward pass.
pub(crate) struct Batch {
    pub(crate) entries: Vec<QueuedText>,
    /// Whether it is half of a failed batch, which is not split again.
    is_half: bool,
}

impl Batch {
    /// A batch from the queue.
    pub(crate) fn new(entries: Vec<QueuedText>) -> Self {
        Self {
            entries,
            is_half: false,
        }
    }

    /// Splits a failed batch into halves, if that may help: always if it was too large for the device, and
    /// once for other faults, so that one poisonous text does not fail the whole batch.
    ///
    /// # Errors
    /// Returns the batch if splitting does not help.
    pub(crate) fn split(self, error: &EngineError) -> Result<[Self; 2], Self> {
        let helps = match error {
            EngineError::OutOfMemory { .. } => true,
            EngineError::Batch(_) => !self.is_half,
            EngineError::Lost(_) => false,
        };
        if !helps || self.entries.len() < 2 {
            return Err(self);
        }
        let is_half = self.is_half || matches!(error, EngineError::Batch(_));
        let mut entries = self.entries;
        let second = entries.split_off(entries.len() / 2);
        Ok([entries, second].map(|entries| Self { entries, is_half }))
    }

    /// Refuses every text of the batch.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for entry in self.entries {
            // A client that has left needs no refusal.
            let _ = entry.reply.send(Err(refusal.clone()));
        }
    }
}
