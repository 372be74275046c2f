//! What a connection is doing, by which its clock is set: waiting for a head, computing, idle, or
//! ending.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Version;
use tokio::time::Instant;

use super::ConnectionLimits;

/// Time that a client has to close its side after we have closed ours.
const LINGER: Duration = Duration::from_secs(1);

/// Seen by the socket (bytes come), by the service (requests begin and end) and by the clock.
#[derive(Debug)]
pub(super) struct Activity {
    origin: Instant,
    in_flight: AtomicU32,
    is_h2: AtomicBool,
    /// Times in microseconds from `origin`, plus one; 0 for not now.
    head: AtomicU64,
    idle: AtomicU64,
    linger: AtomicU64,
}

/// What the clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before then.
    At(Instant),
    /// A request is under way; its own deadline counts.
    Busy,
    /// The connection has had its time.
    Now,
}

impl Activity {
    /// A connection of which nothing has come yet.
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            in_flight: AtomicU32::new(0),
            is_h2: AtomicBool::new(false),
            head: AtomicU64::new(1),
            idle: AtomicU64::new(1),
            linger: AtomicU64::new(0),
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, micros: u64) -> Instant {
        self.origin + Duration::from_micros(micros - 1)
    }

    /// Bytes have come.
    pub(super) fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.micros(), Ordering::Relaxed);
        }
    }

    /// A head is complete; the request is under way until the guard is dropped.
    pub(super) fn begin(self: &std::sync::Arc<Self>, version: Version) -> UnderWay {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head.store(0, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.is_h2.store(true, Ordering::Relaxed);
        }
        UnderWay(std::sync::Arc::clone(self))
    }

    /// We have closed our side.
    pub(super) fn closed(&self) {
        self.linger.store(self.micros(), Ordering::Relaxed);
    }

    /// Whether the connection was seen to speak HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        self.is_h2.load(Ordering::Relaxed)
    }

    /// Since when no request is under way nor on its way, if so.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let busy = self.in_flight.load(Ordering::Acquire) > 0;
        // On HTTP/2, bytes may be anything.
        let head = self.head.load(Ordering::Relaxed);
        let waits = head > 1 && !self.is_h2();
        (!busy && !waits).then(|| self.instant(self.idle.load(Ordering::Relaxed)))
    }

    /// When the connection has to be looked at next.
    pub(super) fn due(&self, limits: &ConnectionLimits) -> Due {
        let load = |time: &AtomicU64| time.load(Ordering::Relaxed);
        let (head, linger) = (load(&self.head), load(&self.linger));
        let at = if linger > 0 {
            self.instant(linger) + LINGER
        } else if self.in_flight.load(Ordering::Acquire) > 0 {
            return Due::Busy;
        } else if head > 0 && !self.is_h2() {
            self.instant(head) + limits.header_timeout
        } else {
            self.instant(load(&self.idle)) + limits.idle_timeout
        };
        if at <= Instant::now() {
            Due::Now
        } else {
            Due::At(at)
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(std::sync::Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let activity = &self.0;
        activity.idle.store(activity.micros(), Ordering::Relaxed);
        activity.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections_max: 1,
        streams_max: 1,
        header_bytes_max: 8192,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
    };

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_however_its_bytes_drip() {
        let activity = Arc::new(Activity::new());
        for _ in 0..9 {
            pass(1).await;
            activity.read();
            assert!(matches!(activity.due(&LIMITS), Due::At(_)));
        }
        pass(1).await;
        assert_eq!(activity.due(&LIMITS), Due::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_the_connection_is_idle_until_bytes_come() {
        let activity = Arc::new(Activity::new());
        let request = activity.begin(Version::HTTP_11);
        pass(600).await;
        assert_eq!(activity.due(&LIMITS), Due::Busy);
        assert_eq!(activity.silent_since(), None);
        drop(request);
        let done = Instant::now();
        assert_eq!(activity.silent_since(), Some(done));
        assert_eq!(activity.due(&LIMITS), Due::At(done + LIMITS.idle_timeout));
        pass(59).await;
        activity.read();
        assert_eq!(activity.silent_since(), None, "a head is on its way");
        pass(9).await;
        assert!(matches!(activity.due(&LIMITS), Due::At(_)));
        pass(1).await;
        assert_eq!(activity.due(&LIMITS), Due::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_do_not_keep_an_idle_http2_connection_open() {
        let activity = Arc::new(Activity::new());
        drop(activity.begin(Version::HTTP_2));
        for _ in 0..59 {
            pass(1).await;
            activity.read();
            assert!(matches!(activity.due(&LIMITS), Due::At(_)));
        }
        pass(1).await;
        assert_eq!(activity.due(&LIMITS), Due::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_close_is_left() {
        let activity = Arc::new(Activity::new());
        activity.closed();
        pass(1).await;
        assert_eq!(activity.due(&LIMITS), Due::Now);
    }
}
