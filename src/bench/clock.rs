//! Waiting until a moment, as exactly as the operating system can.
//!
//! tokio's own timers count in milliseconds, which would be most of the latency of a small model.

use std::time::{Duration, Instant};

/// A timer of the operating system, woken through the same `epoll` as the sockets.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Clock(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

/// Below this, waiting would take longer than what is waited for.
const SHORTEST: Duration = Duration::from_micros(1);

#[cfg(target_os = "linux")]
impl Clock {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that may give up their descriptor; ours owns it"
    )]
    pub(super) fn new() -> std::io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(tokio::io::unix::AsyncFd::new(timer)?))
    }

    /// Returns at `moment`, at once if that has passed.
    pub(super) async fn until(&self, moment: Instant) -> std::io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let wait = moment.saturating_duration_since(Instant::now());
        if wait < SHORTEST {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = Itimerspec {
            it_interval: zero,
            it_value: Timespec::try_from(wait).unwrap_or(zero),
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &time)?;
        let mut ready = self.0.readable().await?;
        let mut expirations = [0; 8];
        // Setting it anew takes the readiness back; reading it makes that certain.
        let _ = rustix::io::read(self.0.get_ref(), &mut expirations);
        ready.clear_ready();
        Ok(())
    }
}

/// tokio's timer, where the operating system has none that fits.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Clock;

#[cfg(not(target_os = "linux"))]
impl Clock {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Returns at `moment`, at once if that has passed.
    pub(super) async fn until(&self, moment: Instant) -> std::io::Result<()> {
        if moment.saturating_duration_since(Instant::now()) >= SHORTEST {
            tokio::time::sleep_until(moment.into()).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_and_does_not_wait_for_the_past() {
        let clock = Clock::new().unwrap();
        for micros in [0, 1, 300, 5000, 20] {
            let moment = Instant::now() + Duration::from_micros(micros);
            clock.until(moment).await.unwrap();
            let now = Instant::now() + SHORTEST;
            assert!(now >= moment, "{micros}: {:?} too early", moment - now);
        }
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        clock.until(past).await.unwrap();
    }
}
