//! What a connection is doing, by which its clock is set: waiting for a head, computing, sending, idle,
//! or ending.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Version;
use tokio::time::Instant;

use super::ConnectionLimits;

/// Time that a client has to close its side after we have closed ours, from the last byte that it
/// sent; and in all.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX: Duration = Duration::from_secs(30);

/// Seen by the socket (bytes come and go), by the service (requests begin and end) and by the clock.
///
/// Times are in microseconds from `origin`, plus one; 0 for not now.
#[derive(Debug)]
pub(super) struct Activity {
    origin: Instant,
    in_flight: AtomicU32,
    is_h2: AtomicBool,
    /// Since when a head is waited for: from the start, or from the first byte after a request.
    head: AtomicU64,
    /// Whether a byte of it has come.
    head_begun: AtomicBool,
    idle: AtomicU64,
    /// Since when the socket takes nothing of what is to be written.
    blocked: AtomicU64,
    /// Since when the answers are ready that are not sent yet.
    answers: Mutex<BTreeMap<u64, u64>>,
    next: AtomicU64,
    /// When our side was closed, and when a byte came last since.
    closed: AtomicU64,
    linger: AtomicU64,
}

/// When the clock has to look again, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The connection has had its time then.
    At(Instant),
    /// No limit applies: a request is under way, whose own deadline counts, or the limit is off.
    Busy,
}

impl Due {
    fn after(start: Instant, limit: Option<Duration>) -> Self {
        limit.map_or(Self::Busy, |limit| Self::At(start + limit))
    }
}

impl Activity {
    /// A connection of which nothing has come yet.
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            in_flight: AtomicU32::new(0),
            is_h2: AtomicBool::new(false),
            head: AtomicU64::new(1),
            head_begun: AtomicBool::new(false),
            idle: AtomicU64::new(1),
            blocked: AtomicU64::new(0),
            answers: Mutex::default(),
            next: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            linger: AtomicU64::new(0),
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, micros: u64) -> Instant {
        self.origin + Duration::from_micros(micros.saturating_sub(1))
    }

    /// Bytes have come.
    pub(super) fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            if self.head.load(Ordering::Relaxed) == 0 {
                self.head.store(self.micros(), Ordering::Relaxed);
            }
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    /// The socket has taken bytes, or does not for the time being.
    pub(super) fn wrote(&self, is_blocked: bool) {
        let before = self.blocked.load(Ordering::Relaxed);
        match (is_blocked, before) {
            (true, 0) => self.blocked.store(self.micros(), Ordering::Relaxed),
            (false, 1..) => self.blocked.store(0, Ordering::Relaxed),
            _ => {}
        }
    }

    /// A head is complete; the request is under way until its answer is sent, or dropped.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> UnderWay {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head.store(0, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.is_h2.store(true, Ordering::Relaxed);
        }
        UnderWay {
            activity: Arc::clone(self),
            answer: None,
        }
    }

    /// Our side is closed; bytes that come are thrown away.
    pub(super) fn discarded(&self) {
        let now = self.micros();
        let _ = self
            .closed
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.linger.store(now, Ordering::Relaxed);
    }

    /// Whether the connection was seen to speak HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        self.is_h2.load(Ordering::Relaxed)
    }

    /// Since when no request is under way nor on its way, if so.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let busy = self.in_flight.load(Ordering::Acquire) > 0;
        let sending = self.blocked.load(Ordering::Relaxed) > 0;
        // On HTTP/2, bytes may be anything.
        let waits = self.head_begun.load(Ordering::Relaxed) && !self.is_h2();
        let since = self.idle.load(Ordering::Relaxed);
        (!busy && !sending && !waits).then(|| self.instant(since))
    }

    /// When the connection has had its time, as things stand.
    pub(super) fn due(&self, limits: &ConnectionLimits) -> Due {
        let load = |time: &AtomicU64| time.load(Ordering::Relaxed);
        let (head, blocked, closed) = (load(&self.head), load(&self.blocked), load(&self.closed));
        if closed > 0 {
            let last = self.instant(load(&self.linger)) + LINGER;
            return Due::At(last.min(self.instant(closed) + LINGER_MAX));
        }
        // An answer that its client does not take holds memory: as long as an idle connection may.
        let oldest = self.answers().first_key_value().map(|(_, since)| *since);
        let stalled = [oldest, (blocked > 0).then_some(blocked)];
        if let Some(since) = stalled.into_iter().flatten().min() {
            return Due::after(self.instant(since), limits.idle_timeout);
        }
        if self.in_flight.load(Ordering::Acquire) > 0 {
            Due::Busy
        } else if head > 0 && !self.is_h2() {
            Due::after(self.instant(head), limits.header_timeout)
        } else {
            Due::after(self.instant(load(&self.idle)), limits.idle_timeout)
        }
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    answer: Option<u64>,
}

impl UnderWay {
    /// Its answer, or more of it, is ready and has to be sent.
    pub(super) fn answered(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let activity = &self.activity;
        let number = activity.next.fetch_add(1, Ordering::Relaxed);
        activity.answers().insert(number, activity.micros());
        self.answer = Some(number);
    }

    /// Its client has taken what there is of the answer; more will come when we have it.
    pub(super) fn waits(&mut self) {
        if let Some(number) = self.answer.take() {
            self.activity.answers().remove(&number);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.waits();
        let activity = &self.activity;
        activity.idle.store(activity.micros(), Ordering::Relaxed);
        activity.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections_max: 1,
        streams_max: 1,
        header_bytes_max: 8192,
        header_timeout: Some(Duration::from_secs(10)),
        idle_timeout: Some(Duration::from_secs(60)),
    };

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn is_over(activity: &Activity) -> bool {
        matches!(activity.due(&LIMITS), Due::At(at) if at <= Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_however_its_bytes_drip() {
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
        assert_eq!(activity.silent_since(), None, "a head is on its way");
        pass(9).await;
        assert!(!is_over(&activity));
        pass(1).await;
        assert!(is_over(&activity));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_limits_is_never_over() {
        let limits = ConnectionLimits {
            header_timeout: None,
            idle_timeout: None,
            ..LIMITS
        };
        let activity = Arc::new(Activity::new());
        assert_eq!(activity.due(&limits), Due::Busy);
        drop(activity.begin(Version::HTTP_11));
        assert_eq!(activity.due(&limits), Due::Busy);
    }

    /// Other requests on the connection do not give it more time.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_has_its_time() {
        let activity = Arc::new(Activity::new());
        let mut stalled = activity.begin(Version::HTTP_2);
        pass(10).await;
        assert_eq!(activity.due(&LIMITS), Due::Busy);
        stalled.answered();
        for _ in 0..59 {
            pass(1).await;
            let mut other = activity.begin(Version::HTTP_2);
            other.answered();
            drop(other);
            assert!(!is_over(&activity));
        }
        assert_eq!(activity.silent_since(), None);
        pass(1).await;
        assert!(is_over(&activity));
        drop(stalled);
        assert!(!is_over(&activity));
    }

    /// A stream of events may have none for hours, which is not its client's fault.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_send_is_not_stalled() {
        let activity = Arc::new(Activity::new());
        let mut stream = activity.begin(Version::HTTP_2);
        stream.answered();
        stream.waits();
        pass(6000).await;
        assert_eq!(activity.due(&LIMITS), Due::Busy);
        stream.answered();
        pass(59).await;
        stream.answered();
        assert!(!is_over(&activity));
        pass(1).await;
        assert!(is_over(&activity), "since its first event was ready");
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_has_its_time_and_one_that_takes_little_has_more() {
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
    async fn a_client_that_does_not_close_is_left() {
        let activity = Arc::new(Activity::new());
        for _ in 0..60 {
            activity.discarded();
            assert!(!is_over(&activity));
            pass(0).await;
            tokio::time::advance(Duration::from_millis(490)).await;
        }
        tokio::time::advance(Duration::from_millis(700)).await;
        assert!(is_over(&activity), "it has sent on for half a minute");
        let activity = Arc::new(Activity::new());
        activity.discarded();
        pass(1).await;
        assert!(is_over(&activity));
    }
}
