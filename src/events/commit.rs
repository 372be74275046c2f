//! Commits what is finished.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};

use super::callbacks::Context;
use super::metrics::Trouble;
use super::state::{Handler, State};

/// Time after which what is finished is committed, however little it is.
const COMMIT: Duration = Duration::from_secs(1);

/// Commits as soon as as much is finished as may be under way, and each [`COMMIT`]: so a process that dies
/// leaves no more to be done again than a few times that.
///
/// A thread of its own that waits for each commit: what librdkafka would say of it by itself, it says behind
/// all the records that it has fetched.
pub(super) fn keep_committing<H: Handler>(consumer: &BaseConsumer<Context<H>>, state: &State<H>) {
    while state.wait(COMMIT, || {
        state.finished.load(Ordering::Relaxed) < state.room()
    }) {
        commit(consumer, state);
    }
}

/// Commits what is finished; returns when the brokers have it, or have said why not.
pub(super) fn commit<H: Handler>(consumer: &BaseConsumer<Context<H>>, state: &State<H>) {
    let one = state.committing.lock();
    let one = one.unwrap_or_else(PoisonError::into_inner);
    state.finished.store(0, Ordering::Relaxed);
    if let Some(due) = state.partitions.take_due()
        && let Err(error) = consumer.commit(&due, CommitMode::Sync)
    {
        state.metrics.fail(Trouble::Commit);
        if let Some(times) = state.said.commit.now() {
            tracing::warn!(%error, times, "offsets were not committed; they will be with the next ones");
        }
        state.partitions.put_back(&due);
    }
    drop(one);
}
