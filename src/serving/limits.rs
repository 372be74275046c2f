//! The bounds of a classifier.

use std::sync::Arc;
use std::time::Duration;

use super::queue::{BatchLimits, SlotLimits};
use super::timing::Prior;

/// The bounds of a [`Classifier`](super::Classifier).
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests in flight; derived from the measured capacity if `None`.
    pub concurrency_max: Option<usize>,
    /// Texts waiting for the engine; derived from the measured capacity if `None`.
    pub queue_max: Option<usize>,
    /// Percentage of the queue that lists may use.
    pub list_share: usize,
    /// Texts in one request.
    pub texts_max: usize,
    /// The size of a batch.
    pub batch: BatchLimits,
    /// The latency objective, if any. Requests that would take longer are refused.
    pub slo: Option<Duration>,
    /// Whether a loaded model is calibrated before it serves: a few batches, within 200 ms.
    pub calibrate: bool,
    /// A profile, used instead of calibration if it holds on this machine.
    pub prior: Option<Arc<Prior>>,
    /// Consecutive failed batches after which the server is unready.
    pub engine_failures_max: u32,
}

/// Limits without a measured capacity.
const CONCURRENCY: usize = 512;
const QUEUE: usize = 2048;

/// Range of the derived concurrency. The lower bound holds for slow models and short objectives; the upper
/// bound limits memory.
const CONCURRENCY_RANGE: (usize, usize) = (64, 16_384);

/// The derived concurrency is the capacity times the objective times this factor. That is more than can be
/// answered in time: the forecast refuses earlier and more precisely, and this only bounds memory.
const OBJECTIVE_FACTOR: f64 = 2.0;

impl Limits {
    /// The concurrency and slot limits of a server that answers `capacity` requests per second.
    pub(crate) fn for_capacity(&self, capacity: Option<f64>) -> (usize, SlotLimits) {
        let concurrency = self.concurrency_max.unwrap_or(match (capacity, self.slo) {
            (Some(capacity), Some(slo)) => {
                let (min, max) = CONCURRENCY_RANGE;
                ((OBJECTIVE_FACTOR * capacity * slo.as_secs_f64()) as usize).clamp(min, max)
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
        // The longest list always fits into an empty queue.
        let share = slots / 100 * self.list_share + slots % 100 * self.list_share / 100;
        let lists = share.max(self.texts_max);
        (concurrency, SlotLimits { slots, lists })
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
