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

/// How busy the calling thread is: of a load generator that has no time left, the latencies are its
/// own.
#[derive(Debug)]
pub(super) struct Busy(Option<(Instant, Duration)>);

impl Busy {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// From here on, if not before.
    pub(super) fn start(&mut self) {
        if self.0.is_none() {
            self.0 = thread_cpu().map(|cpu| (Instant::now(), cpu));
        }
    }

    /// The share of the time since the start in which the thread was running; 0 where the
    /// operating system does not tell.
    pub(super) fn share(&self) -> f64 {
        let Some((start, cpu)) = self.0 else {
            return 0.0;
        };
        let ran = thread_cpu().map_or(Duration::ZERO, |now| now.saturating_sub(cpu));
        ran.as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9)
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
