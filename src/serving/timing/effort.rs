//! Effort: the engine's own cost of batches, independent of other load on the machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::curve::ServiceCurve;
use crate::engine::Engine;
use intentd_base::atomic::AtomicF64;
use intentd_base::turns::thread_time;

/// The engine's own cost of batches. That is the CPU time of its thread if it computes alone, the elapsed time
/// minus the host's share of the cores if several threads compute, and the elapsed time on a device.
///
/// The forecast needs the time of a batch under the current load. The capacity needs its time when the engine
/// has all it needs. Hence two curves.
#[derive(Debug)]
pub(crate) struct Effort {
    pub(crate) curve: ServiceCurve,
    /// Nanoseconds of all batches: elapsed time, and the part of it that counts as effort.
    elapsed: AtomicU64,
    spent: AtomicU64,
    /// Share of the cores that the host takes, if the engine computes on them.
    host_share: AtomicF64,
}

impl Effort {
    pub(crate) fn new() -> Self {
        Self {
            host_share: AtomicF64::default(),
            curve: ServiceCurve::new(),
            elapsed: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        }
    }

    /// Sets the share of the cores that the host takes: 0 to 1.
    pub(crate) fn set_host_share(&self, share: f64) {
        self.host_share.store(share.clamp(0.0, 0.9));
    }

    /// The engine's time so far.
    pub(crate) fn time(&self) -> EngineTime {
        let nanos = |count: &AtomicU64| Duration::from_nanos(count.load(Ordering::Relaxed));
        EngineTime {
            elapsed: nanos(&self.elapsed),
            spent: nanos(&self.spent),
        }
    }

    /// Learns that a batch of `tokens` took `elapsed`. `ran` is the CPU time of the engine's thread, if that is
    /// its cost.
    pub(crate) fn observe(&self, tokens: usize, elapsed: Duration, ran: Option<Duration>) {
        let share = self.host_share.load();
        let spent = ran.unwrap_or_else(|| elapsed.mul_f64(1.0 - share));
        self.curve.observe(tokens, spent);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed.fetch_add(nanos(elapsed), Ordering::Relaxed);
        self.spent.fetch_add(nanos(spent), Ordering::Relaxed);
    }
}

/// CPU time of the calling thread, if that is the cost of `engine`.
pub(crate) fn engine_cpu_time(engine: &dyn Engine) -> Option<Duration> {
    engine.computes_alone().then(thread_time)
}

/// The time an engine has spent on batches since its model was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineTime {
    /// Elapsed time of batches.
    pub elapsed: Duration,
    /// The part of it that counts as the engine's effort.
    pub spent: Duration,
}

impl EngineTime {
    /// The time since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            elapsed: self.elapsed.saturating_sub(before.elapsed),
            spent: self.spent.saturating_sub(before.spent),
        }
    }
}
