//! Detects an engine that hangs.
//!
//! The engine's thread reports when it starts and when it advances. A watchdog checks for new reports. A
//! thread stuck in a call cannot be ended; only the process can.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The last report of the engine's thread.
#[derive(Debug)]
pub(crate) struct EngineProgress {
    origin: Instant,
    /// Microseconds from `origin` to the last report, plus one; 0 while the engine is idle. Two reports
    /// have the same number only if they come within a microsecond.
    last: AtomicU64,
}

impl EngineProgress {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Reports that the engine has work and has just advanced.
    pub(crate) fn advance(&self) {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last.store(micros + 1, Ordering::Relaxed);
    }

    /// Reports that the engine is idle.
    pub(crate) fn idle(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// Waits until the engine has not advanced for `timeout`.
    ///
    /// Time is counted per check, so that a process that was stopped for a while (by a debugger or a frozen
    /// container) does not take its engine for stuck when it continues.
    pub(crate) async fn stuck(&self, timeout: Duration) {
        let interval = (timeout / 8).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let (mut seen, mut silent) = (0, Duration::ZERO);
        while silent < timeout {
            tokio::time::sleep(interval).await;
            let last = self.last.load(Ordering::Relaxed);
            silent = if last == 0 || last != seen {
                Duration::ZERO
            } else {
                silent + interval
            };
            seen = last;
        }
    }

    /// Waits until the engine advances again.
    pub(crate) async fn advanced(&self) {
        let seen = self.last.load(Ordering::Relaxed);
        while self.last.load(Ordering::Relaxed) == seen {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_idle_engine_is_not_stuck() {
        let progress = EngineProgress::new();
        let timeout = Duration::from_millis(20);
        let hangs = async |wait| {
            let stuck = progress.stuck(timeout);
            tokio::time::timeout(wait, stuck).await.is_ok()
        };
        assert!(!hangs(4 * timeout).await, "idle");
        progress.advance();
        assert!(hangs(Duration::from_secs(60)).await);
        progress.idle();
        assert!(!hangs(4 * timeout).await, "idle again");
    }
}
