//! The bounds of a classifier.

use std::sync::Arc;
use std::time::Duration;

use super::queue::{BatchLimits, Room};
use super::timing::Prior;

/// The bounds of a [`Classifier`](super::Classifier).
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests admitted and not yet answered; by the measured capacity when `None`.
    pub concurrency_max: Option<usize>,
    /// Texts admitted and not yet taken by the engine; by the measured capacity when `None`.
    pub queue_max: Option<usize>,
    /// Percentage of the queue that lists may take.
    pub list_share: usize,
    /// Texts in one request.
    pub texts_max: usize,
    /// The size of a batch.
    pub batch: BatchLimits,
    /// Time within which requests should be answered, if there is such an objective; what would take longer is
    /// refused.
    pub slo: Option<Duration>,
    /// Whether a loaded model is measured before it serves: some batches, within 200 ms.
    pub calibrate: bool,
    /// A profile, which is taken in place of measuring where it holds.
    pub prior: Option<Arc<Prior>>,
    /// Batches that may fail one after the other before requests should go elsewhere.
    pub engine_failures_max: u32,
}

/// Limits that hold before anything is measured, and where nothing is.
const CONCURRENCY: usize = 512;
const QUEUE: usize = 2048;

/// However slow the model and however short the objective, so many may be in flight; and however
/// fast, no more than so many, since each costs memory.
const CONCURRENCY_RANGE: (usize, usize) = (64, 16_384);

/// Requests whose work would take twice the objective are more than can be answered in time; the
/// forecast refuses them earlier and better, so this bounds memory rather than latency.
const OBJECTIVES: f64 = 2.0;

impl Limits {
    /// Requests in flight and room for texts that wait, for a server that answers `capacity` requests
    /// a second.
    pub(crate) fn for_capacity(&self, capacity: Option<f64>) -> (usize, Room) {
        let concurrency = self.concurrency_max.unwrap_or(match (capacity, self.slo) {
            (Some(capacity), Some(slo)) => {
                let (min, max) = CONCURRENCY_RANGE;
                ((OBJECTIVES * capacity * slo.as_secs_f64()) as usize).clamp(min, max)
            }
            _ => CONCURRENCY,
        });
        let slots = self.queue_max.unwrap_or(match capacity {
            Some(_) => {
                let lists = self.texts_max.saturating_mul(2);
                concurrency.saturating_mul(4).max(lists)
            }
            None => QUEUE.max(self.texts_max),
        });
        // The longest list always fits into a queue that is otherwise empty.
        let share = slots / 100 * self.list_share + slots % 100 * self.list_share / 100;
        let lists = share.max(self.texts_max);
        (concurrency, Room { slots, lists })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            concurrency_max: None,
            queue_max: None,
            list_share: 50,
            texts_max: 256,
            batch: BatchLimits {
                tokens_max: 4096,
                texts_max: 256,
            },
            slo: Some(Duration::from_millis(100)),
            calibrate: true,
            prior: None,
            engine_failures_max: 5,
        }
    }

    #[test]
    fn limits_follow_the_capacity_unless_they_are_set() {
        let limits_of = |limits: Limits, capacity| {
            let (concurrency, room) = limits.for_capacity(capacity);
            (concurrency, room.slots, room.lists)
        };
        assert_eq!(limits_of(limits(), Some(5000.0)), (1000, 4000, 2000));
        assert_eq!(
            limits_of(limits(), Some(10.0)),
            (64, 512, 256),
            "a slow model"
        );
        assert_eq!(limits_of(limits(), Some(1e9)).0, 16_384, "a fast one");
        assert_eq!(limits_of(limits(), None), (512, 2048, 1024));
        let set = Limits {
            concurrency_max: Some(7),
            queue_max: Some(300),
            ..limits()
        };
        assert_eq!(limits_of(set, Some(5000.0)), (7, 300, 256));
    }
}
