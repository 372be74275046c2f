//! A timer with the precision of the operating system.
//!
//! tokio's own timers have a resolution of a millisecond, which is most of the latency of a small model.

use std::time::{Duration, Instant};

/// A timer file descriptor, polled through the same `epoll` as the sockets.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Timer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

/// Shorter waits would take longer than the time left.
const SHORTEST: Duration = Duration::from_micros(1);

#[cfg(target_os = "linux")]
impl Timer {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that may give up their descriptor; this type owns it"
    )]
    pub(super) fn new() -> std::io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(tokio::io::unix::AsyncFd::new(timer)?))
    }

    /// Waits until `moment`; returns at once if it has passed.
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
        // Arming the timer again clears its readiness; reading it makes sure.
        let _ = rustix::io::read(self.0.get_ref(), &mut expirations);
        ready.clear_ready();
        Ok(())
    }
}

/// tokio's timer, on systems without timer file descriptors.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits until `moment`; returns at once if it has passed.
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
    async fn it_waits_until_a_moment_and_not_for_a_past_one() {
        let timer = Timer::new().unwrap();
        for micros in [0, 1, 300, 5000, 20] {
            let moment = Instant::now() + Duration::from_micros(micros);
            timer.until(moment).await.unwrap();
            let now = Instant::now() + SHORTEST;
            assert!(now >= moment, "{micros}: {:?} too early", moment - now);
        }
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        timer.until(past).await.unwrap();
    }
}
