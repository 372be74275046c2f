//! Effort: the engine's own cost of batches, independent of other load on the machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::curve::ServiceCurve;
use crate::engine::Engine;
use intentd_base::atomic::AtomicF64;
use intentd_base::turns::thread_time;

/// A pause after which the next batch is cold: this long, and so many times the batch.
const COLD: Duration = Duration::from_millis(20);
const COLD_FACTOR: u32 = 10;

/// The engine's own cost of batches. That is the CPU time of its thread if it computes alone, the elapsed time without
/// the share in which its threads wait for a core if several compute, and the elapsed time on a device.
///
/// The forecast needs the time of a batch under the current load. The capacity needs its time when the engine
/// has all it needs. Hence two curves.
#[derive(Debug)]
pub(crate) struct Effort {
    pub(crate) curve: ServiceCurve,
    /// Nanoseconds of all batches: elapsed time, and the part of it that counts as effort.
    elapsed: AtomicU64,
    spent: AtomicU64,
    batches: AtomicU64,
    /// Share of their time that the engine's threads wait for a core, if it computes on the cores.
    waiting_share: AtomicF64,
}

impl Effort {
    pub(crate) fn new() -> Self {
        Self {
            waiting_share: AtomicF64::default(),
            curve: ServiceCurve::new(),
            elapsed: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        }
    }

    /// Sets the share of their time that the engine's threads wait for a core: 0 to 1.
    pub(crate) fn set_waiting_share(&self, share: f64) {
        self.waiting_share.store(share.clamp(0.0, 0.98));
    }

    /// The engine's time so far.
    pub(crate) fn time(&self) -> EngineTime {
        let nanos = |count: &AtomicU64| Duration::from_nanos(count.load(Ordering::Relaxed));
        EngineTime {
            elapsed: nanos(&self.elapsed),
            spent: nanos(&self.spent),
        }
    }

    /// Learns that a batch of `tokens` took `elapsed`, `idle` after the one before it. `ran` is the CPU time of the
    /// engine's thread, if that is its cost.
    pub(crate) fn observe(
        &self,
        tokens: usize,
        elapsed: Duration,
        ran: Option<Duration>,
        idle: Duration,
    ) {
        let share = self.waiting_share.load();
        let spent = ran.unwrap_or_else(|| elapsed.mul_f64(1.0 - share));
        if !self.is_cold(elapsed, idle) {
            self.curve.observe(tokens, spent);
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed.fetch_add(nanos(elapsed), Ordering::Relaxed);
        self.spent.fetch_add(nanos(spent), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// All batches so far, with those that say nothing about the curve.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Whether a batch says little about those under load, because caches and cores are cold after a pause that is long
    /// beside it. Without any other, it counts all the same.
    fn is_cold(&self, elapsed: Duration, idle: Duration) -> bool {
        idle > COLD.max(COLD_FACTOR * elapsed) && self.curve.batches() > 0
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a day of one request a minute on cold cores, after a calibration of five sizes.
    #[test]
    fn cold_batches_change_nothing() {
        let effort = Effort::new();
        let micros = |tokens: usize| Duration::from_micros(100 + 10 * tokens as u64);
        let sizes = [1, 16, 64, 256, 1024];
        for tokens in sizes {
            effort.observe(tokens, micros(tokens), None, Duration::ZERO);
        }
        let slow = |tokens| micros(tokens).mul_f64(1.5);
        let batch = |tokens: f64| effort.curve.line().seconds(1.0, tokens);
        let before = (batch(10.0), batch(1000.0));
        for minute in 0..24 * 60 {
            let tokens = sizes[minute % sizes.len()];
            effort.observe(tokens, slow(tokens), None, Duration::from_secs(60));
        }
        assert_eq!((batch(10.0), batch(1000.0)), before);
        // Under load they count.
        for batch in 0..500 {
            let tokens = sizes[batch % sizes.len()];
            effort.observe(tokens, slow(tokens), None, Duration::ZERO);
        }
        let after = batch(10.0);
        assert!(after > 1.1 * before.0, "{after} after {}", before.0);
    }
}
