//! A batch of texts, and how it is split when it fails.

use crate::engine::EngineError;
use crate::error::Refusal;
use crate::serving::queue::Waiting;

/// Texts that are computed together.
pub(crate) struct Batch {
    pub(crate) entries: Vec<Waiting>,
    /// Whether it is half of a batch that failed: it is not split again.
    is_half: bool,
}

impl Batch {
    /// A batch as it came from the queue.
    pub(crate) fn new(entries: Vec<Waiting>) -> Self {
        Self {
            entries,
            is_half: false,
        }
    }

    /// Both halves of a part that failed, if that may help: always when it was too large for the device,
    /// once for other faults, so that one poisonous text does not take its neighbours with it.
    ///
    /// # Errors
    /// The part, where it does not help.
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

    /// Answers all of it with a refusal.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for entry in self.entries {
            // A client that has left needs no refusal.
            let _ = entry.reply.send(Err(refusal.clone()));
        }
    }
}
