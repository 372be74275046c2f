//! The phases of a classifier.

use std::sync::atomic::{AtomicU8, Ordering};

/// A phase of a classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first model is being loaded.
    Loading,
    /// Requests are answered.
    Ready,
    /// Requests are still answered, but should go elsewhere: the process is about to end.
    Draining,
    /// The engine is lost.
    Lost,
}

const PHASES: [Phase; 4] = [Phase::Loading, Phase::Ready, Phase::Draining, Phase::Lost];

/// The current phase, which only moves forward.
#[derive(Debug)]
pub(super) struct CurrentPhase(AtomicU8);

impl CurrentPhase {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(Phase::Loading as u8))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }

    pub(super) fn get(&self) -> Phase {
        PHASES[usize::from(self.0.load(Ordering::Acquire))]
    }
}
