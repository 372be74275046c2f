//! Texts that wait for the engine, oldest first.
//!
//! Takes encoded texts, gives batches. Bounded by [`Slots`]: a slot is taken before any work is
//! done for a text and given back when the engine takes the text or its client leaves,
//! whichever comes first; the two race for the text's [`Ticket`], and exactly one wins.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGauge};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batcher::{BatchLimits, plan};
use crate::error::Refusal;
use crate::model::Encoded;

/// The bound on waiting texts, and what the operator sees of it.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: AtomicUsize,
    max: usize,
    depth: IntGauge,
    abandoned: IntCounter,
}

impl Slots {
    pub(crate) fn new(max: usize, depth: IntGauge, abandoned: IntCounter) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
            depth,
            abandoned,
        })
    }

    /// Takes `count` slots, all or none.
    pub(crate) fn reserve(self: &Arc<Self>, count: usize) -> Result<Vec<Ticket>, Refusal> {
        let room = |taken: usize| taken.checked_add(count).filter(|taken| *taken <= self.max);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| Refusal::QueueFull {
                count,
                max: self.max,
            })?;
        self.depth.add(count as i64);
        let ticket = || Ticket {
            state: Arc::default(),
            slots: Arc::clone(self),
        };
        Ok(std::iter::repeat_with(ticket).take(count).collect())
    }

    fn release(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
        self.depth.dec();
    }
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// The client's side of a waiting text: dropped before the engine has taken the text, it takes
/// the text out of the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    state: Arc<AtomicU8>,
    slots: Arc<Slots>,
}

impl Ticket {
    /// Whoever moves the state away from `WAITING` gives the slot back.
    fn leave(state: &AtomicU8, slots: &Slots, to: u8) -> bool {
        let won = state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if won {
            slots.release();
        }
        won
    }

    /// Gives the slot back for a text that will not be queued after all, its request being
    /// refused.
    pub(crate) fn release(self) {
        Self::leave(&self.state, &self.slots, TAKEN);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if Self::leave(&self.state, &self.slots, ABANDONED) {
            self.slots.abandoned.inc();
        }
    }
}

/// The answer to one text: its row of logits, or why there is none.
pub(crate) type Answer = Result<Vec<f32>, Refusal>;

/// One text in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) encoded: Encoded,
    pub(crate) since: Instant,
    pub(crate) reply: oneshot::Sender<Answer>,
    state: Arc<AtomicU8>,
    slots: Arc<Slots>,
}

impl Waiting {
    /// Puts a text under its client's ticket.
    pub(crate) fn new(
        ticket: &Ticket,
        encoded: Encoded,
        since: Instant,
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        let (state, slots) = (Arc::clone(&ticket.state), Arc::clone(&ticket.slots));
        Self {
            encoded,
            since,
            reply,
            state,
            slots,
        }
    }

    fn is_abandoned(&self) -> bool {
        self.state.load(Ordering::Acquire) == ABANDONED
    }

    /// Claims the text for the engine; false when its client has left.
    fn take(&self) -> bool {
        Ticket::leave(&self.state, &self.slots, TAKEN)
    }
}

/// What the engine's thread gets when it asks for work.
#[derive(Debug)]
pub(crate) enum Work {
    /// At least one text.
    Batch(Vec<Waiting>),
    /// Nothing waits now.
    None,
    /// Nothing waits and nothing will come.
    Closed,
}

/// The queue itself.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrival: Condvar,
    /// Entries that may stand in the queue, abandoned ones included, before it is swept.
    sweep_at: usize,
    /// What stands in it, for those who do not take the lock.
    texts: AtomicUsize,
    tokens: AtomicUsize,
}

/// What stands in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) texts: usize,
    pub(crate) tokens: usize,
}

impl Standing {
    /// Whether a batch within `limits` would leave something behind.
    pub(crate) fn fills(self, limits: BatchLimits) -> bool {
        self.texts > limits.texts_max || self.tokens > limits.tokens_max
    }
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Waiting>,
    closed: bool,
    /// Whether the engine's thread sleeps until something arrives. Waking it is a system call, also
    /// when it is awake.
    sleeping: bool,
}

impl Queue {
    /// A queue for at most `max` living entries.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrival: Condvar::new(),
            sweep_at: max.saturating_mul(2),
            texts: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
        }
    }

    /// Adds entries at the end, in one piece.
    ///
    /// Gives them back when the queue is closed.
    pub(crate) fn push(&self, entries: Vec<Waiting>) -> Result<(), Vec<Waiting>> {
        let mut state = self.lock();
        if state.closed {
            return Err(entries);
        }
        if state.entries.len() + entries.len() > self.sweep_at {
            // Slots bound the living; without this, clients that come and go while the engine is
            // busy would leave their entries here without bound.
            state.entries.retain(|entry| !entry.is_abandoned());
            self.publish(&state);
        }
        let tokens = entries.iter().map(|entry| entry.encoded.ids.len()).sum();
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.texts.fetch_add(entries.len(), Ordering::Relaxed);
        state.entries.extend(entries);
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// The next batch: everything that waits, oldest first, within `limits`; entries whose
    /// client has left are dropped. With `wait`, blocks until there is something or the queue is
    /// closed.
    pub(crate) fn take(&self, limits: BatchLimits, wait: bool) -> Work {
        let mut state = self.lock();
        loop {
            state.entries.retain(|entry| !entry.is_abandoned());
            let count = plan(
                state.entries.iter().map(|entry| entry.encoded.ids.len()),
                limits,
            );
            let batch: Vec<Waiting> = state.entries.drain(..count).filter(Waiting::take).collect();
            self.publish(&state);
            if !batch.is_empty() {
                return Work::Batch(batch);
            }
            if !state.entries.is_empty() {
                continue;
            }
            if state.closed {
                return Work::Closed;
            }
            if !wait {
                return Work::None;
            }
            state.sleeping = true;
            state = self
                .arrival
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.sleeping = false;
        }
    }

    /// How much waits, abandoned entries included. Takes no lock: the engine's thread asks again
    /// and again while its device is busy.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            texts: self.texts.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
        }
    }

    /// Publishes what stands in the queue; called before its lock is given back.
    fn publish(&self, state: &State) {
        let tokens = state.entries.iter().map(|entry| entry.encoded.ids.len());
        self.tokens.store(tokens.sum(), Ordering::Relaxed);
        self.texts.store(state.entries.len(), Ordering::Relaxed);
    }

    /// Refuses further entries; those inside are still given out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_all();
    }

    /// Refuses further entries and takes out those inside.
    pub(crate) fn close_and_clear(&self) -> Vec<Waiting> {
        let mut state = self.lock();
        state.closed = true;
        let entries = std::mem::take(&mut state.entries);
        self.publish(&state);
        drop(state);
        self.arrival.notify_all();
        entries.into_iter().filter(Waiting::take).collect()
    }

    /// No critical section here can panic half-way, so a poisoned lock is as good as a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
