//! What can be seen of a classifier while it serves, without waiting for it: for the hints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::classifier::Classifier;
use super::curve::{Line, ServiceCurve};
use super::slots::Class;
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

/// A classifier at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Counts up from one loaded model to the next.
    pub generation: u64,
    /// τ0 in seconds.
    pub setup: f64,
    /// α in seconds a token.
    pub token: f64,
    /// Mean distance of batches from that line, as a part of what they took.
    pub fit_error: f64,
    /// Batches that it was learnt from.
    pub batches: u64,
    /// Tokens of the largest batch.
    pub batch_tokens: usize,
    /// Texts of the largest batch.
    pub batch_texts: usize,
    /// Whether batches are computed on the cores that everything else runs on.
    pub shares_cores: bool,
    /// Whether they are computed by the engine's thread alone, whose CPU time is then what they take.
    pub computes_alone: bool,
    /// Time of the engine.
    pub engine: EngineTime,
    /// Seconds that a byte of a large body takes the host, and whether that is more than a guess.
    pub byte: (f64, bool),
    /// Tokens that wait.
    pub waiting_tokens: usize,
    /// Requests that wait in a log elsewhere.
    pub backlog: u64,
    /// Texts that wait.
    pub waiting_texts: usize,
    /// How long the oldest of them has.
    pub oldest_wait: Duration,
    /// Requests admitted and not yet answered.
    pub in_flight: usize,
}

impl Classifier {
    /// Says which part of the cores everything but the engine takes.
    pub(crate) fn host_takes(&self, share: f64) {
        if let Some(generation) = self.current().filter(|model| !model.is_on_device) {
            let share = share.clamp(0.0, 0.9).to_bits();
            let effort = &generation.shared.effort;
            effort.host_share.store(share, Ordering::Relaxed);
        }
    }

    /// What can be seen of the model in use, once there is one.
    pub fn observe(&self) -> Option<Observation> {
        let generation = self.current()?;
        let shared = &generation.shared;
        let effort = &shared.effort;
        let Line { setup, token } = effort.curve.line();
        let count = |gauge: &prometheus::IntGauge| usize::try_from(gauge.get()).unwrap_or(0);
        let nanos = |count: &AtomicU64| Duration::from_nanos(count.load(Ordering::Relaxed));
        Some(Observation {
            generation: generation.number,
            setup,
            token,
            fit_error: effort.curve.error(),
            batches: effort.curve.batches(),
            batch_tokens: shared.forecast.batch_tokens(),
            batch_texts: self.limits.batch.texts_max,
            shares_cores: !generation.is_on_device,
            computes_alone: generation.computes_alone,
            engine: EngineTime {
                elapsed: nanos(&effort.elapsed),
                spent: nanos(&effort.spent),
            },
            byte: self.host.byte_cost(),
            waiting_tokens: self.slots.tokens(Class::Single) + self.slots.tokens(Class::List),
            backlog: self.arrivals.backlog(),
            waiting_texts: count(&self.metrics().queue_depth),
            oldest_wait: shared.queue.oldest_wait(),
            in_flight: count(&self.metrics().in_flight),
        })
    }
}
