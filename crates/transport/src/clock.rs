//! The clock of one connection: decides when a connection ends that its client keeps open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::activity::{Activity, Due};
use super::limits::ConnectionLimits;

/// Silence after which a closing port closes a connection. By then everything that the client sent before
/// has been read.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// Interval of checks on a connection that ends once its request does.
pub(super) const ENDING_CHECK: Duration = Duration::from_millis(20);

/// Interval of checks on a connection whose request is in flight.
const BUSY_CHECK: Duration = Duration::from_secs(1);

/// Time for requests that an HTTP/2 client began before it received GOAWAY.
const GOODBYE: Duration = Duration::from_secs(1);

/// Decides when a connection ends.
pub(super) struct ConnectionClock {
    activity: Arc<Activity>,
    limits: ConnectionLimits,
    /// Since when the port closes.
    closing: Option<Instant>,
    /// When the client was told that the connection ends (HTTP/2), or when it was closed (HTTP/1).
    told: Option<Instant>,
}

/// What to do with a connection now.
pub(super) enum ClockStep {
    /// Check again at this time.
    CheckAt(Instant),
    /// Shut down gracefully, and check again soon.
    ShutDown,
    /// Drop the connection.
    Drop,
}

impl ConnectionClock {
    pub(super) fn new(activity: Arc<Activity>, limits: ConnectionLimits) -> Self {
        Self {
            activity,
            limits,
            closing: None,
            told: None,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The port closes.
    pub(super) fn set_closing(&mut self) {
        self.closing = Some(Instant::now());
    }

    /// When to check the connection, in its present state.
    pub(super) fn check_at(&self) -> Instant {
        check_at(self.activity.due(&self.limits))
    }

    pub(super) fn step(&mut self) -> ClockStep {
        let now = Instant::now();
        let due = self.activity.due(&self.limits);
        let is_over = matches!(due, Due::At(at) if at <= now);
        match (self.told, self.closing) {
            // GOAWAY lets the client finish the requests that it has begun (RFC 9113, section 6.8).
            (None, _) if is_over && self.activity.is_h2() => self.shut_down(now),
            _ if is_over => ClockStep::Drop,
            (Some(told), _) => match self.activity.silent_since() {
                Some(since) if now.duration_since(since.max(told)) > GOODBYE => ClockStep::Drop,
                _ => ClockStep::CheckAt(now + ENDING_CHECK),
            },
            (None, Some(closing)) => self.close(now, closing),
            (None, None) => ClockStep::CheckAt(check_at(due)),
        }
    }

    fn shut_down(&mut self, now: Instant) -> ClockStep {
        self.told = Some(now);
        ClockStep::ShutDown
    }

    fn close(&mut self, now: Instant, closing: Instant) -> ClockStep {
        if self.activity.is_h2() {
            return self.shut_down(now);
        }
        // A request on HTTP/1 that crosses the end of its connection is lost. So the connection ends only
        // when nothing is arriving; before that, the response to a request says that it is the last.
        match self.activity.silent_since() {
            Some(since) if now.duration_since(since.max(closing)) >= QUIET => self.shut_down(now),
            _ => ClockStep::CheckAt(now + ENDING_CHECK),
        }
    }
}

fn check_at(due: Due) -> Instant {
    match due {
        Due::At(at) => at,
        Due::Busy => Instant::now() + BUSY_CHECK,
    }
}
