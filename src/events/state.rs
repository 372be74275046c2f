//! What the threads of a reader share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::metrics::KafkaMetrics;
use super::partition::Partitions;
use super::record::Record;
use super::window::Window;
use crate::seldom::Seldom;

/// What is done with records.
pub(super) trait Handler: Send + Sync + 'static {
    /// Does what there is to do about a record; ready when nothing is left to do.
    fn handle(&self, record: &Record) -> impl Future<Output = ()> + Send;

    /// The same for a record that [`handle`](Self::handle) panicked on.
    fn give_up(&self, record: &Record) -> impl Future<Output = ()> + Send;

    /// Whether records would be worked on now.
    fn is_willing(&self) -> bool;

    /// Records that may be worked on at once.
    fn room(&self) -> usize;

    /// The topic is being read.
    fn begin(&self);

    /// So many records were written since the last look, and so many are not read.
    fn see(&self, written: u64, unread: u64);
}

/// What the threads share.
pub(super) struct State<H> {
    pub(super) handler: H,
    pub(super) metrics: KafkaMetrics,
    pub(super) partitions: Partitions,
    pub(super) window: Window,
    pub(super) is_paused: AtomicBool,
    /// Whether partitions were assigned, be it none.
    pub(super) is_assigned: AtomicBool,
    /// Records that may be worked on, as the handler said last.
    pub(super) room: AtomicUsize,
    /// Records finished since the last commit.
    pub(super) finished: AtomicUsize,
    /// One commit at a time, so that none overtakes another.
    pub(super) committing: Mutex<()>,
    /// Why reading has come to an end that only another process can mend.
    pub(super) fatal: watch::Sender<Option<String>>,
    /// When what is under way must be finished, once the reader is to stop.
    stop: Mutex<Option<Instant>>,
    pub(super) changed: Condvar,
    /// What librdkafka complained of last.
    complaint: Mutex<Option<String>>,
    pub(super) said: Said,
}

/// Lines of the log that come of records and of brokers.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) commit: Seldom,
    pub(super) complaint: Seldom,
    pub(super) hold: Seldom,
    pub(super) panic: Seldom,
    pub(super) rebalance: Seldom,
}

impl<H> std::fmt::Debug for State<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl<H> State<H> {
    pub(super) fn new(handler: H, metrics: KafkaMetrics) -> Self {
        Self {
            handler,
            metrics,
            partitions: Partitions::default(),
            window: Window::new(),
            is_paused: AtomicBool::new(false),
            is_assigned: AtomicBool::new(false),
            room: AtomicUsize::new(1),
            finished: AtomicUsize::new(0),
            committing: Mutex::new(()),
            fatal: watch::Sender::new(None),
            stop: Mutex::new(None),
            changed: Condvar::new(),
            complaint: Mutex::new(None),
            said: Said::default(),
        }
    }

    /// When what is under way must be finished, once the reader is to stop.
    pub(super) fn stop(&self) -> MutexGuard<'_, Option<Instant>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop().is_some()
    }

    /// Sleeps, unless the reader stops; whether it goes on.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        self.wait(time, || true)
    }

    /// As [`sleep`](Self::sleep), for as long as `waits`.
    pub(super) fn wait(&self, time: Duration, waits: impl Fn() -> bool) -> bool {
        let goes_on = |stop: &mut Option<Instant>| stop.is_none() && waits();
        let slept = self.changed.wait_timeout_while(self.stop(), time, goes_on);
        let (stop, _) = slept.unwrap_or_else(PoisonError::into_inner);
        stop.is_none()
    }

    pub(super) fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    /// A record is finished.
    pub(super) fn finish(&self, record: &Record) {
        record.partition.ledger().finish(record.offset);
        if self.finished.fetch_add(1, Ordering::Relaxed) + 1 >= self.room() {
            self.changed.notify_all();
        }
        self.window.leave();
    }

    pub(super) fn complaint(&self) -> MutexGuard<'_, Option<String>> {
        let complaint = self.complaint.lock();
        complaint.unwrap_or_else(PoisonError::into_inner)
    }
}
