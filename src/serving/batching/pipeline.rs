//! The state that the requests and the engine's thread of one model share.

use std::sync::Arc;

use super::health::Health;
use super::progress::EngineProgress;
use crate::serving::queue::Queue;
use crate::serving::timing::EngineTiming;

/// The queue of one model, and the timing, progress and health of its engine.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) queue: Queue,
    pub(crate) timing: Arc<EngineTiming>,
    pub(crate) progress: EngineProgress,
    pub(crate) health: Health,
}

impl Pipeline {
    /// A pipeline with an empty queue. Its engine is unhealthy after `engine_failures_max` consecutive failures.
    pub(crate) fn new(timing: Arc<EngineTiming>, engine_failures_max: u32) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(),
            timing,
            progress: EngineProgress::new(),
            health: Health::new(engine_failures_max),
        })
    }
}
