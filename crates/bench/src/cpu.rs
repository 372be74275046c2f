//! CPU time of a thread of the load generator.
//!
//! A generator thread that is busy all the time adds its own delay to the latencies it measures.

use std::time::{Duration, Instant};

/// Measures the share of time for which the calling thread runs.
#[derive(Debug)]
pub(super) struct CpuShare(Option<CpuStart>);

/// Wall clock and CPU time at the start of the measurement.
#[derive(Debug)]
struct CpuStart {
    at: Instant,
    cpu: Duration,
}

impl CpuShare {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// Starts the measurement on the first call.
    pub(super) fn start(&mut self) {
        if self.0.is_none() {
            let start = |cpu| CpuStart {
                at: Instant::now(),
                cpu,
            };
            self.0 = thread_cpu().map(start);
        }
    }

    /// CPU time by wall clock time since the start; 0 where the operating system does not report it.
    pub(super) fn get(&self) -> f64 {
        let Some(start) = &self.0 else {
            return 0.0;
        };
        let ran = thread_cpu().map_or(Duration::ZERO, |now| now.saturating_sub(start.cpu));
        ran.as_secs_f64() / start.at.elapsed().as_secs_f64().max(1e-9)
    }
}

#[cfg(target_os = "linux")]
fn thread_cpu() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()
}

#[cfg(not(target_os = "linux"))]
fn thread_cpu() -> Option<Duration> {
    None
}
