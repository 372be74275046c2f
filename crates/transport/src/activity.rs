//! What a connection is doing: waiting for a head, computing, sending, idle, or closing. The clock
//! (`clock.rs`) derives its deadlines from this.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Version;
use tokio::time::Instant;

use super::limits::ConnectionLimits;
use intentd_base::atomic::AtomicInstant;

/// Time that a client has to close its side after we have closed ours: from the last byte that it sent,
/// and in total.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX: Duration = Duration::from_secs(30);

/// The activity of one connection. The socket reports bytes, the service reports requests, the clock reads.
#[derive(Debug)]
pub(super) struct Activity {
    in_flight: AtomicU32,
    is_h2: AtomicBool,
    /// Since when a head is awaited: from the start, or from the first byte after a request.
    head_since: AtomicInstant,
    /// Whether a byte of the head has arrived.
    head_begun: AtomicBool,
    /// The end of the last request, or the start of the connection.
    idle_since: AtomicInstant,
    /// Since when the socket accepts no more bytes.
    blocked_since: AtomicInstant,
    /// Responses that are ready and not sent yet, by number, with the time at which each became ready.
    unsent: Mutex<BTreeMap<u64, Instant>>,
    next_unsent: AtomicU64,
    /// When our side was closed.
    closed_at: AtomicInstant,
    /// When the last byte arrived after that.
    discarded_at: AtomicInstant,
}

/// When the clock has to check a connection, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The time of the connection is over at this instant.
    At(Instant),
    /// No limit applies: a request is in flight, whose own deadline applies, or the limit is off.
    Busy,
}

impl Due {
    fn after(start: Instant, limit: Option<Duration>) -> Self {
        limit.map_or(Self::Busy, |limit| Self::At(start + limit))
    }
}

impl Activity {
    /// A connection on which nothing has arrived yet.
    pub(super) fn new() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            is_h2: AtomicBool::new(false),
            head_since: AtomicInstant::now(),
            head_begun: AtomicBool::new(false),
            idle_since: AtomicInstant::now(),
            blocked_since: AtomicInstant::unset(),
            unsent: Mutex::default(),
            next_unsent: AtomicU64::new(0),
            closed_at: AtomicInstant::unset(),
            discarded_at: AtomicInstant::unset(),
        }
    }

    /// Bytes have arrived.
    pub(super) fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            if !self.head_since.is_set() {
                self.head_since.store(Instant::now());
            }
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    /// The socket has accepted bytes, or accepts none for now.
    pub(super) fn wrote(&self, is_blocked: bool) {
        match (is_blocked, self.blocked_since.is_set()) {
            (true, false) => self.blocked_since.store(Instant::now()),
            (false, true) => self.blocked_since.clear(),
            _ => {}
        }
    }

    /// A head is complete. The request is in flight until its response is sent or dropped.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> InFlightRequest {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head_since.clear();
        self.head_begun.store(false, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.is_h2.store(true, Ordering::Relaxed);
        }
        InFlightRequest {
            activity: Arc::clone(self),
            unsent: None,
        }
    }

    /// Our side is closed; bytes that arrive are discarded.
    pub(super) fn discarded(&self) {
        let now = Instant::now();
        self.closed_at.store_first(now);
        self.discarded_at.store(now);
    }

    /// Whether a request has shown that the connection speaks HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        self.is_h2.load(Ordering::Relaxed)
    }

    /// Since when no request is in flight or arriving. `None` while one is.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let is_busy = self.in_flight.load(Ordering::Acquire) > 0;
        let is_sending = self.blocked_since.is_set();
        // On HTTP/2, bytes need not belong to a head.
        let is_receiving = self.head_begun.load(Ordering::Relaxed) && !self.is_h2();
        let idle = self.idle_since.load();
        idle.filter(|_| !is_busy && !is_sending && !is_receiving)
    }

    /// When the time of the connection is over, in its present state.
    pub(super) fn due(&self, limits: &ConnectionLimits) -> Due {
        let head = self.head_since.load();
        let blocked = self.blocked_since.load();
        if let Some(closed) = self.closed_at.load() {
            let last = self.discarded_at.load().unwrap_or(closed);
            return Due::At((last + LINGER).min(closed + LINGER_MAX));
        }
        // A response that the client does not accept holds memory, so it gets the time of an idle connection.
        let oldest = self.unsent().first_key_value().map(|(_, since)| *since);
        if let Some(since) = [oldest, blocked].into_iter().flatten().min() {
            return Due::after(since, limits.idle_timeout);
        }
        if self.in_flight.load(Ordering::Acquire) > 0 {
            return Due::Busy;
        }
        match (head, self.idle_since.load()) {
            (Some(head), _) if !self.is_h2() => Due::after(head, limits.header_timeout),
            (_, idle) => Due::after(idle.unwrap_or_else(Instant::now), limits.idle_timeout),
        }
    }

    fn unsent(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight; dropping it ends the request.
#[derive(Debug)]
pub(super) struct InFlightRequest {
    activity: Arc<Activity>,
    /// The number of its unsent response.
    unsent: Option<u64>,
}

impl InFlightRequest {
    /// The response, or more of it, is ready to be sent.
    pub(super) fn response_ready(&mut self) {
        if self.unsent.is_some() {
            return;
        }
        let activity = &self.activity;
        let number = activity.next_unsent.fetch_add(1, Ordering::Relaxed);
        activity.unsent().insert(number, Instant::now());
        self.unsent = Some(number);
    }

    /// The client has received the response so far; more follows when we have it.
    pub(super) fn response_sent(&mut self) {
        if let Some(number) = self.unsent.take() {
            self.activity.unsent().remove(&number);
        }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.response_sent();
        let activity = &self.activity;
        activity.idle_since.store(Instant::now());
        activity.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits::EXAMPLE;

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn is_over(activity: &Activity) -> bool {
        matches!(activity.due(&LIMITS), Due::At(at) if at <= Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_has_the_header_timeout_in_total() {
        let activity = Arc::new(Activity::new());
        for _ in 0..9 {
            pass(1).await;
            activity.read();
            assert!(!is_over(&activity));
            assert_eq!(activity.silent_since(), None);
        }
        pass(1).await;
        assert!(is_over(&activity));
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
        let limit = LIMITS.idle_timeout.unwrap();
        assert_eq!(activity.due(&LIMITS), Due::At(done + limit));
        pass(59).await;
        activity.read();
        assert_eq!(activity.silent_since(), None, "a head is arriving");
        pass(9).await;
        assert!(!is_over(&activity));
        pass(1).await;
        assert!(is_over(&activity));
    }

    /// Other requests on the connection do not extend its time.
    #[tokio::test(start_paused = true)]
    async fn an_unread_response_times_out() {
        let activity = Arc::new(Activity::new());
        let mut stalled = activity.begin(Version::HTTP_2);
        pass(10).await;
        assert_eq!(activity.due(&LIMITS), Due::Busy);
        stalled.response_ready();
        for _ in 0..59 {
            pass(1).await;
            let mut other = activity.begin(Version::HTTP_2);
            other.response_ready();
            drop(other);
            assert!(!is_over(&activity));
        }
        assert_eq!(activity.silent_since(), None);
        pass(1).await;
        assert!(is_over(&activity));
        drop(stalled);
        assert!(!is_over(&activity));
    }

    /// A stream of events may have none for hours; that is not its client's fault.
    #[tokio::test(start_paused = true)]
    async fn a_response_with_nothing_to_send_is_not_stalled() {
        let activity = Arc::new(Activity::new());
        let mut stream = activity.begin(Version::HTTP_2);
        stream.response_ready();
        stream.response_sent();
        pass(6000).await;
        assert_eq!(activity.due(&LIMITS), Due::Busy);
        stream.response_ready();
        pass(59).await;
        stream.response_ready();
        assert!(!is_over(&activity));
        pass(1).await;
        assert!(is_over(&activity), "since its first event was ready");
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_socket_times_out_and_a_slow_one_does_not() {
        let activity = Arc::new(Activity::new());
        drop(activity.begin(Version::HTTP_11));
        for _ in 0..10 {
            activity.wrote(true);
            pass(59).await;
            assert!(!is_over(&activity));
            assert_eq!(activity.silent_since(), None);
            activity.wrote(false);
        }
        activity.wrote(true);
        pass(60).await;
        assert!(is_over(&activity));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_do_not_keep_an_idle_http2_connection_open() {
        let activity = Arc::new(Activity::new());
        drop(activity.begin(Version::HTTP_2));
        for _ in 0..59 {
            pass(1).await;
            activity.read();
            assert!(!is_over(&activity));
        }
        pass(1).await;
        assert!(is_over(&activity));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_close_is_dropped() {
        let activity = Arc::new(Activity::new());
        for _ in 0..60 {
            activity.discarded();
            assert!(!is_over(&activity));
            pass(0).await;
            tokio::time::advance(Duration::from_millis(490)).await;
        }
        tokio::time::advance(Duration::from_millis(700)).await;
        assert!(is_over(&activity), "it has kept sending for half a minute");
        let activity = Arc::new(Activity::new());
        activity.discarded();
        pass(1).await;
        assert!(is_over(&activity));
    }
}
