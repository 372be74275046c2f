//! The log: lines to standard error, which nobody has to read.
//!
//! A thread of its own writes them. While whoever reads has stopped, lines are dropped and counted, and
//! nothing waits: neither a request nor the end of the process.

use std::io::{IsTerminal, Write};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use super::terminal;
use crate::config::LogFormat;
use crate::metrics::LOG_LINES_DROPPED;

/// Lines that wait to be written: what a busy server logs in a second.
const WAITING_MAX: usize = 16_384;

/// How often dropped lines are counted, and said when lines come through again.
const LOOK: Duration = Duration::from_millis(250);

/// What the end of the process waits for its last words.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ends the thread when it is dropped, with what waits written if somebody reads.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Logs to standard error what `filter` lets through.
pub(super) fn start(filter: &str, format: LogFormat) {
    // h2 would log paths that it cannot read, and paths hold texts; and it warns of each frame and each
    // connection of a client that misbehaves.
    let filter = format!("{filter},h2=error");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let color = std::io::stderr().is_terminal();
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Saying that a message cannot be written needs the same place, and panics when it is full.
        .log_internal_errors(false)
        .with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(color).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    // The standard hook writes by itself, and whoever panics would wait for a reader.
    let standard = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if somebody_reads() {
            return standard(panic);
        }
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(thread, "{panic}");
    }));
    std::thread::spawn(move || watch(&dropped));
}

/// Whether a page can be written to standard error without waiting.
fn somebody_reads() -> bool {
    let stderr = std::io::stderr();
    let mut asked = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut asked, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Counts what is dropped, and says so once somebody reads again.
fn watch(dropped: &ErrorCounter) {
    let (mut before, mut said) = (0, 0);
    loop {
        std::thread::sleep(LOOK);
        let now = dropped.dropped_lines();
        LOG_LINES_DROPPED.inc_by((now - before) as u64);
        let rests = now == before;
        before = now;
        if rests && now > said && somebody_reads() {
            let lines = now - said;
            tracing::warn!(lines, "lines of the log were dropped: nobody took them");
            // Unless this one was dropped as well.
            if dropped.dropped_lines() == now {
                said = now;
            }
        }
    }
}

/// Writes what waits, if somebody reads; `patience` at most.
pub(super) fn flush(patience: Duration) {
    let guard = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(guard) = guard {
        within(patience, move || drop(guard));
    }
}

/// The end of a command that failed, on standard error.
pub(super) fn say_last(message: &str) {
    let message = terminal::lines(message);
    within(LAST_WORDS, move || {
        // The exit code says it as well where nobody can read it.
        let _ = writeln!(std::io::stderr(), "intentd: {message}");
    });
}

/// Runs what may wait for a reader, and waits for it no longer than that.
fn within(patience: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::sync_channel(1);
    let work = move || {
        work();
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(work).is_ok() {
        let _ = ended.recv_timeout(patience);
    }
}
