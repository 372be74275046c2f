//! What requests and the engine's thread of one model share.

use std::sync::Arc;

use super::health::Health;
use super::progress::Progress;
use crate::serving::queue::Queue;
use crate::serving::timing::EngineTiming;

/// From the texts that wait to what is known of the engine.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) queue: Queue,
    pub(crate) timing: Arc<EngineTiming>,
    pub(crate) progress: Progress,
    pub(crate) health: Health,
}

impl Pipeline {
    /// With an empty queue, and a healthy engine until `engine_failures_max` batches have failed in a row.
    pub(crate) fn new(timing: Arc<EngineTiming>, engine_failures_max: u32) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(),
            timing,
            progress: Progress::new(),
            health: Health::new(engine_failures_max),
        })
    }
}
