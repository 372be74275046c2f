//! State that the threads of a reader share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;

use super::in_flight::InFlightRecords;
use super::metrics::KafkaMetrics;
use super::partition::Partitions;
use super::record::Record;
use intentd_base::LogThrottle;

/// Whether a broker denies access: no retry helps until somebody grants it.
pub(super) fn is_denial(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_denial_code)
}

/// As [`is_denial`], by its code.
pub(super) fn is_denial_code(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, GroupAuthorizationFailed,
        SaslAuthenticationFailed, TopicAuthorizationFailed,
    };
    matches!(
        code,
        Authentication
            | ClusterAuthorizationFailed
            | GroupAuthorizationFailed
            | SaslAuthenticationFailed
            | TopicAuthorizationFailed
    )
}

/// Processes the records that a reader reads.
pub(super) trait RecordHandler: Send + Sync + 'static {
    /// Processes a record; ready when nothing is left to do about it.
    fn handle(&self, record: &Record) -> impl Future<Output = ()> + Send;

    /// Disposes of a record on which [`handle`](Self::handle) panicked.
    fn give_up(&self, record: &Record) -> impl Future<Output = ()> + Send;

    /// Whether the handler can process records now.
    fn is_ready(&self) -> bool;

    /// The number of records that may be in flight.
    fn in_flight_max(&self) -> usize;

    /// Whether nothing is known that keeps it from writing results.
    fn can_write(&self) -> bool;

    /// Called when the topics begin to be read, and when access is denied or granted again.
    fn set_reading(&self, is_reading: bool);

    /// Called at each measurement of the partitions' ends.
    fn observe(&self, arrivals: LogArrivals);
}

/// New and unread records of all assigned partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LogArrivals {
    /// Records written since the last measurement.
    pub(super) written: u64,
    /// Records that are not read yet.
    pub(super) unread: u64,
}

/// State that the threads share.
pub(super) struct ReaderState<H> {
    pub(super) handler: H,
    pub(super) metrics: KafkaMetrics,
    pub(super) partitions: Partitions,
    /// Topics whose partitions begin at their end if the group has read none of them.
    pub(super) begins_at_end: Vec<String>,
    pub(super) in_flight: InFlightRecords,
    pub(super) is_paused: AtomicBool,
    /// Whether the brokers have answered once.
    pub(super) is_connected: AtomicBool,
    /// Whether partitions were assigned, even if none.
    pub(super) is_assigned: AtomicBool,
    /// The handler's last answer to [`RecordHandler::in_flight_max`].
    in_flight_max: AtomicUsize,
    /// Records finished since the last commit began.
    pub(super) finished: AtomicUsize,
    /// Records finished before that which no commit has confirmed yet: it is on its way, or has failed.
    pub(super) unconfirmed: AtomicUsize,
    /// Held during a commit, so that none overtakes another.
    pub(super) committing: Mutex<()>,
    /// Whether a broker has denied access, and nothing has shown since that it is granted.
    is_denied: AtomicBool,
    /// Why this process cannot read any more, once that is so.
    pub(super) fatal: watch::Sender<Option<String>>,
    /// The deadline for records in flight, once the reader is to stop.
    stop: Mutex<Option<Instant>>,
    changed: Condvar,
    /// librdkafka's last complaint.
    complaint: Mutex<Option<String>>,
    pub(super) log: ReaderLog,
}

/// Throttles of the log lines that records and brokers cause.
#[derive(Debug, Default)]
pub(super) struct ReaderLog {
    pub(super) commit: LogThrottle,
    pub(super) complaint: LogThrottle,
    pub(super) expired: LogThrottle,
    pub(super) gone: LogThrottle,
    pub(super) pause: LogThrottle,
    pub(super) panic: LogThrottle,
    pub(super) reading: LogThrottle,
    pub(super) denied: LogThrottle,
    pub(super) rebalance: LogThrottle,
}

impl<H> std::fmt::Debug for ReaderState<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderState").finish_non_exhaustive()
    }
}

impl<H> ReaderState<H> {
    pub(super) fn new(handler: H, metrics: KafkaMetrics, begins_at_end: Vec<String>) -> Self {
        Self {
            handler,
            metrics,
            partitions: Partitions::default(),
            begins_at_end,
            in_flight: InFlightRecords::new(),
            is_paused: AtomicBool::new(false),
            is_connected: AtomicBool::new(false),
            is_assigned: AtomicBool::new(false),
            in_flight_max: AtomicUsize::new(1),
            finished: AtomicUsize::new(0),
            unconfirmed: AtomicUsize::new(0),
            committing: Mutex::new(()),
            is_denied: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
            stop: Mutex::new(None),
            changed: Condvar::new(),
            complaint: Mutex::new(None),
            log: ReaderLog::default(),
        }
    }

    /// Stops the reader; records in flight have until `deadline`.
    pub(super) fn stop(&self, deadline: Instant) {
        *self.locked_stop() = Some(deadline);
        self.changed.notify_all();
    }

    /// The deadline for records in flight, once the reader is to stop.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.locked_stop()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.deadline().is_some()
    }

    /// Sleeps for `time`, or until the reader stops. Returns whether it goes on.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        self.wait(time, || true)
    }

    /// Sleeps as [`sleep`](Self::sleep), but no longer than `condition` holds.
    pub(super) fn wait(&self, time: Duration, condition: impl Fn() -> bool) -> bool {
        let goes_on = |stop: &mut Option<Instant>| stop.is_none() && condition();
        let slept = self
            .changed
            .wait_timeout_while(self.locked_stop(), time, goes_on);
        let (stop, _) = slept.unwrap_or_else(PoisonError::into_inner);
        stop.is_none()
    }

    pub(super) fn in_flight_max(&self) -> usize {
        self.in_flight_max.load(Ordering::Relaxed)
    }

    pub(super) fn set_in_flight_max(&self, records: usize) {
        self.in_flight_max.store(records, Ordering::Relaxed);
    }

    /// A record is finished.
    pub(super) fn finish(&self, record: &Record) {
        record.partition.finish(record.offset);
        if self.finished.fetch_add(1, Ordering::Relaxed) + 1 >= self.in_flight_max() {
            self.changed.notify_all();
        }
        self.in_flight.leave();
    }

    /// Records that are finished and that no commit has covered, as far as is known.
    pub(super) fn uncommitted(&self) -> usize {
        let finished = self.finished.load(Ordering::Relaxed);
        finished.saturating_add(self.unconfirmed.load(Ordering::Relaxed))
    }

    /// Notes that a broker denied access, if that is what the error says. librdkafka asks again and again, but reports
    /// most denials once.
    pub(super) fn note_denial(&self, error: &KafkaError) {
        if is_denial(error) {
            self.is_denied.store(true, Ordering::Relaxed);
        }
    }

    /// Notes something that needs access: partitions were assigned, something was read, or offsets were committed.
    pub(super) fn note_access(&self) {
        self.is_denied.store(false, Ordering::Relaxed);
    }

    /// Whether a broker denies access, as far as is known.
    pub(super) fn is_denied(&self) -> bool {
        self.is_denied.load(Ordering::Relaxed)
    }

    pub(super) fn complaint(&self) -> MutexGuard<'_, Option<String>> {
        let complaint = self.complaint.lock();
        complaint.unwrap_or_else(PoisonError::into_inner)
    }

    fn locked_stop(&self) -> MutexGuard<'_, Option<Instant>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
