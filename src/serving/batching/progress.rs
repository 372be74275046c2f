//! Tells a working engine from one that hangs.
//!
//! The engine's thread says when it begins and when it gets somewhere; whoever watches looks whether
//! it said anything new. A thread inside a call that never returns cannot be ended, only the process
//! can.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the engine's thread has reported last.
#[derive(Debug)]
pub(crate) struct Progress {
    origin: Instant,
    /// Microseconds from `origin` to the last report, plus one; 0 while there is nothing to do. Two
    /// reports never have the same number unless they come within a microsecond.
    last: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// The engine has work and got somewhere just now.
    pub(crate) fn made(&self) {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last.store(micros + 1, Ordering::Relaxed);
    }

    /// The engine has nothing to do.
    pub(crate) fn idle(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// Ready once the engine has got nowhere for `timeout`.
    ///
    /// Time counts from look to look, so that a process that was stopped for a while (a debugger, a
    /// frozen container) does not find its engine stuck when it goes on.
    pub(crate) async fn stuck(&self, timeout: Duration) {
        let look = (timeout / 8).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let (mut seen, mut silent) = (0, Duration::ZERO);
        while silent < timeout {
            tokio::time::sleep(look).await;
            let last = self.last.load(Ordering::Relaxed);
            silent = if last == 0 || last != seen {
                Duration::ZERO
            } else {
                silent + look
            };
            seen = last;
        }
    }
}

impl Progress {
    /// Ready once the engine gets somewhere again.
    pub(crate) async fn moved(&self) {
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
    async fn only_an_engine_with_work_hangs() {
        let progress = Progress::new();
        let timeout = Duration::from_millis(20);
        let hangs = async |wait| {
            let stuck = progress.stuck(timeout);
            tokio::time::timeout(wait, stuck).await.is_ok()
        };
        assert!(!hangs(4 * timeout).await, "idle");
        progress.made();
        assert!(hangs(Duration::from_secs(60)).await);
        progress.idle();
        assert!(!hangs(4 * timeout).await, "idle again");
    }
}
