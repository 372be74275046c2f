//! The log, on standard error.
//!
//! A separate thread writes the lines. When the reader of standard error stalls, lines are dropped and
//! counted. Requests never wait for the log, and the end of the process waits one second at most.

use std::io::{IsTerminal, Write};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use super::terminal;
use crate::config::LogFormat;
use crate::metrics::LOG_LINES_DROPPED;

/// Lines that may wait to be written: as many as a busy server logs in a second.
const LINES_WAITING_MAX: usize = 16_384;

/// Interval at which dropped lines are counted, and reported once the reader is back.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Time for the last lines and the error message when the process ends.
pub(super) const EXIT_PATIENCE: Duration = Duration::from_secs(1);

/// Dropping the guard writes the waiting lines, if the reader takes them, and ends the thread.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Starts to log the messages that pass `filter`.
pub(super) fn start(filter: &str, format: LogFormat) {
    // h2 logs paths that it cannot parse, and paths contain texts. It also warns about each frame and each
    // connection of a client that misbehaves.
    let filter = format!("{filter},h2=error");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let color = std::io::stderr().is_terminal();
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Reporting a lost message would need the same buffer, and panics when it is full.
        .log_internal_errors(false)
        .with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(color).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    // The standard hook writes to standard error, where a panicking thread would wait for the reader.
    let standard = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if stderr_is_writable() {
            return standard(panic);
        }
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(thread, "{panic}");
    }));
    std::thread::spawn(move || watch(&dropped));
}

/// Whether a page can be written to standard error without blocking.
fn stderr_is_writable() -> bool {
    let stderr = std::io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Counts dropped lines, and reports them once the reader is back.
fn watch(dropped: &ErrorCounter) {
    let (mut before, mut reported) = (0, 0);
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        let now = dropped.dropped_lines();
        LOG_LINES_DROPPED.inc_by((now - before) as u64);
        let is_quiet = now == before;
        before = now;
        if is_quiet && now > reported && stderr_is_writable() {
            let lines = now - reported;
            tracing::warn!(lines, "lines of the log were dropped: nobody took them");
            // Otherwise the report itself was dropped.
            if dropped.dropped_lines() == now {
                reported = now;
            }
        }
    }
}

/// Writes the waiting lines, within `patience`.
pub(super) fn flush(patience: Duration) {
    let guard = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(guard) = guard {
        within(patience, move || drop(guard));
    }
}

/// Writes the message of a command that failed to standard error.
pub(super) fn print_error(message: &str) {
    let message = terminal::lines(message);
    within(EXIT_PATIENCE, move || {
        // Where this fails, the exit code still says that the command failed.
        let _ = writeln!(std::io::stderr(), "intentd: {message}");
    });
}

/// Runs work that may block on the reader, and waits for it no longer than `patience`.
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
