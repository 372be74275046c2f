//! What batches cost the engine, whatever else the machine was doing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::curve::ServiceCurve;
use crate::engine::Engine;

/// What batches cost the engine, whatever else the machine was busy with: the time that its thread ran
/// where it computes alone, the time from start to end less the host's share of the cores where several
/// threads do, and the time from start to end on a device.
///
/// The forecast needs to know how long a batch will take here and now; the capacity needs to know how
/// long it takes when the engine has what it needs. So there are two curves.
#[derive(Debug)]
pub(crate) struct Effort {
    pub(crate) curve: ServiceCurve,
    /// Nanoseconds of all batches: from their start to their end, and of these what counts as effort.
    elapsed: AtomicU64,
    spent: AtomicU64,
    /// Part of the cores that the host takes, where the engine computes on them: the bits of an `f64`.
    host_share: AtomicU64,
}

impl Effort {
    pub(crate) fn new() -> Self {
        Self {
            host_share: AtomicU64::new(0),
            curve: ServiceCurve::new(),
            elapsed: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        }
    }

    /// Sets the part of the cores that the host takes: 0 to 1.
    pub(crate) fn set_host_share(&self, share: f64) {
        let share = share.clamp(0.0, 0.9).to_bits();
        self.host_share.store(share, Ordering::Relaxed);
    }

    /// Time of the engine so far.
    pub(crate) fn time(&self) -> EngineTime {
        let nanos = |count: &AtomicU64| Duration::from_nanos(count.load(Ordering::Relaxed));
        EngineTime {
            elapsed: nanos(&self.elapsed),
            spent: nanos(&self.spent),
        }
    }

    /// A batch of `tokens` took `elapsed`, of which the engine's thread ran for `ran`, if that counts.
    pub(crate) fn observe(&self, tokens: usize, elapsed: Duration, ran: Option<Duration>) {
        let share = f64::from_bits(self.host_share.load(Ordering::Relaxed));
        let spent = ran.unwrap_or_else(|| elapsed.mul_f64(1.0 - share));
        self.curve.observe(tokens, spent);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed.fetch_add(nanos(elapsed), Ordering::Relaxed);
        self.spent.fetch_add(nanos(spent), Ordering::Relaxed);
    }
}

/// CPU time of the calling thread, where that is what `engine` takes and where the system tells.
pub(crate) fn thread_time(engine: &dyn Engine) -> Option<Duration> {
    if !engine.computes_alone() {
        return None;
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let nanos = u32::try_from(time.tv_nsec).ok()?;
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Time that an engine has been given batches for, since its model was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineTime {
    /// From the start of batches to their end.
    pub elapsed: Duration,
    /// Of that, what the engine spent on them.
    pub spent: Duration,
}

impl EngineTime {
    /// What has come since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            elapsed: self.elapsed.saturating_sub(before.elapsed),
            spent: self.spent.saturating_sub(before.spent),
        }
    }
}
