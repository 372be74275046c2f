//! The queue of texts that wait for the engine, oldest first within each class.
//!
//! Input: encoded texts. Output: batches. Bounded by [`Slots`](super::Slots): a text has its slot before it is
//! queued. Texts whose client has left or whose deadline has passed never reach the engine.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fill::{BatchLimits, Filling, Lead};
use super::slots::{Claim, Class, Ticket};
use super::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError};
use crate::error::Refusal;
use crate::model::Encoded;

/// The engine's reply to one text.
pub(crate) type Reply = Result<TextOutput, Refusal>;

/// The engine's output for one text.
#[derive(Debug, PartialEq)]
pub(crate) struct TextOutput {
    /// One logit per class.
    pub(crate) logits: Vec<f32>,
    /// Time that its batch spent in the engine.
    pub(crate) computed: Duration,
}

/// A text in the queue.
#[derive(Debug)]
pub(crate) struct QueuedText {
    pub(crate) encoded: Encoded,
    pub(crate) since: Instant,
    pub(crate) reply: oneshot::Sender<Reply>,
    /// When the reply is due, if there is a deadline.
    deadline: Option<Instant>,
    claim: Claim,
}

impl QueuedText {
    /// A queued text for the ticket of its client.
    pub(crate) fn new(
        ticket: &Ticket,
        encoded: Encoded,
        since: Instant,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Reply>,
    ) -> Self {
        ticket.set_tokens(encoded.ids.len());
        Self {
            encoded,
            since,
            reply,
            deadline,
            claim: ticket.claim(),
        }
    }

    fn tokens(&self) -> usize {
        self.encoded.ids.len()
    }
}

/// How long the engine's thread waits for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitTime {
    /// Not at all.
    Zero,
    /// At most this long.
    AtMost(Duration),
    /// Until there are texts or the queue is closed.
    Unlimited,
}

/// What [`Queue::take`] returns.
#[derive(Debug)]
pub(crate) enum Dequeued {
    /// At least one text.
    Batch(Vec<QueuedText>),
    /// No text waits now.
    Empty,
    /// No text waits and the queue is closed.
    Closed,
}

/// The queue of waiting texts.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    arrival: Condvar,
    /// Its size, readable without the lock.
    texts: AtomicUsize,
    tokens: AtomicUsize,
    /// Arrival of the oldest text: microseconds from `origin`, plus one; 0 if the queue is empty.
    oldest: AtomicUsize,
    origin: Instant,
}

/// The size of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueSize {
    pub(crate) texts: usize,
    pub(crate) tokens: usize,
}

impl QueueSize {
    /// Whether the queue holds more than one batch within `limits`.
    pub(crate) fn fills(self, limits: BatchLimits) -> bool {
        self.texts > limits.texts_max || self.tokens > limits.tokens_max
    }
}

#[derive(Debug, Default)]
struct QueueState {
    singles: VecDeque<QueuedText>,
    lists: VecDeque<QueuedText>,
    lead: Lead,
    closed: bool,
    /// Whether the engine's thread sleeps until a text arrives. Waking it costs a system call, even if it is
    /// awake.
    sleeping: bool,
    /// Number of entries at which void ones are removed: twice the number left after the last removal.
    sweep_at: usize,
}

/// Smallest number of entries worth sweeping.
const SWEEP_MIN: usize = 64;

impl QueueState {
    fn class(&mut self, class: Class) -> &mut VecDeque<QueuedText> {
        match class {
            Class::Single => &mut self.singles,
            Class::List => &mut self.lists,
        }
    }

    fn len(&self) -> usize {
        self.singles.len() + self.lists.len()
    }

    /// The tokens of the next text to compute in a class. Removes void and expired entries before it.
    fn front(
        &mut self,
        class: Class,
        now: Instant,
        expired: &mut Vec<QueuedText>,
    ) -> Option<usize> {
        let entries = self.class(class);
        loop {
            let entry = entries.front()?;
            let is_late = entry.deadline.is_some_and(|deadline| deadline <= now);
            if !is_late && !entry.claim.is_void() {
                return Some(entry.tokens());
            }
            let entry = entries.pop_front()?;
            if entry.claim.take() {
                expired.push(entry);
            }
        }
    }

    /// The next batch within `limits`. Texts past their deadline go to `expired`.
    fn fill(
        &mut self,
        limits: BatchLimits,
        now: Instant,
        expired: &mut Vec<QueuedText>,
    ) -> Vec<QueuedText> {
        let mut batch = Vec::new();
        let mut filling = Filling::new(limits);
        loop {
            let single = self.front(Class::Single, now, expired);
            let list = self.front(Class::List, now, expired);
            let Some(class) = filling.next(self.lead, single, list) else {
                return batch;
            };
            let Some(entry) = self.class(class).pop_front() else {
                return batch;
            };
            // Its client may have left in the meantime.
            if entry.claim.take() {
                let contested = single.is_some() && list.is_some();
                filling.add(class, entry.tokens(), contested, &mut self.lead);
                batch.push(entry);
            }
        }
    }
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(QueueState {
                sweep_at: SWEEP_MIN,
                ..QueueState::default()
            }),
            arrival: Condvar::new(),
            texts: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
            oldest: AtomicUsize::new(0),
            origin: Instant::now(),
        }
    }

    /// Appends the texts of one request to their class, without gaps.
    ///
    /// # Errors
    /// Returns them if the queue is closed.
    pub(crate) fn push(&self, entries: Vec<QueuedText>) -> Result<(), Vec<QueuedText>> {
        let Some(class) = entries.first().map(|entry| entry.claim.class()) else {
            return Ok(());
        };
        let mut state = self.lock();
        if state.closed {
            return Err(entries);
        }
        if state.len() + entries.len() > state.sweep_at {
            // Slots bound only the live entries. Without this, clients that come and go while the engine is
            // busy would leave an unbounded number of void ones.
            state.singles.retain(|entry| !entry.claim.is_void());
            state.lists.retain(|entry| !entry.claim.is_void());
            state.sweep_at = SWEEP_MIN.max(2 * (state.len() + entries.len()));
            self.publish(&state);
        }
        if state.len() == 0 {
            self.oldest
                .store(self.micros(entries[0].since), Ordering::Relaxed);
        }
        let tokens = entries.iter().map(QueuedText::tokens).sum();
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.texts.fetch_add(entries.len(), Ordering::Relaxed);
        state.class(class).extend(entries);
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Takes the next batch: everything that waits, within `limits`. Refuses texts past their deadline.
    pub(crate) fn take(&self, limits: BatchLimits, wait_time: WaitTime) -> Dequeued {
        let mut state = self.lock();
        let mut wait_time = wait_time;
        loop {
            let mut expired = Vec::new();
            let batch = state.fill(limits, Instant::now(), &mut expired);
            self.publish(&state);
            if !batch.is_empty() || !expired.is_empty() {
                drop(state);
                for entry in expired {
                    // Its client may have left too.
                    let _ = entry.reply.send(Err(Refusal::Deadline));
                }
                if !batch.is_empty() {
                    return Dequeued::Batch(batch);
                }
                state = self.lock();
                continue;
            }
            if state.closed {
                return Dequeued::Closed;
            }
            state = match wait_time {
                WaitTime::Zero => return Dequeued::Empty,
                WaitTime::Unlimited => self.sleep(state),
                WaitTime::AtMost(time) => {
                    wait_time = WaitTime::Zero;
                    self.sleep_at_most(state, time)
                }
            };
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        state.sleeping = true;
        let mut state = self
            .arrival
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
        state.sleeping = false;
        state
    }

    fn sleep_at_most<'a>(
        &self,
        mut state: MutexGuard<'a, QueueState>,
        time: Duration,
    ) -> MutexGuard<'a, QueueState> {
        state.sleeping = true;
        let waited = self.arrival.wait_timeout(state, time);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.sleeping = false;
        state
    }

    /// The size of the queue, including void entries. Takes no lock: the engine's thread polls it while its
    /// device is busy.
    pub(crate) fn size(&self) -> QueueSize {
        QueueSize {
            texts: self.texts.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
        }
    }

    /// Publishes the size of the queue. Called before the lock is released.
    fn publish(&self, state: &QueueState) {
        let entries = || state.singles.iter().chain(&state.lists);
        let tokens = entries().map(QueuedText::tokens).sum();
        self.tokens.store(tokens, Ordering::Relaxed);
        self.texts.store(state.len(), Ordering::Relaxed);
        let fronts = [state.singles.front(), state.lists.front()];
        let oldest = fronts.iter().flatten().map(|entry| entry.since).min();
        let oldest = oldest.map_or(0, |since| self.micros(since));
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    fn micros(&self, since: Instant) -> usize {
        let micros = since.saturating_duration_since(self.origin).as_micros();
        usize::try_from(micros).map_or(usize::MAX, |micros| micros.saturating_add(1))
    }

    /// How long the oldest text has waited. Takes no lock.
    pub(crate) fn oldest_wait(&self) -> Duration {
        let oldest = self.oldest.load(Ordering::Relaxed);
        let waited = |micros: usize| {
            let since = Duration::from_micros(micros as u64 - 1);
            self.origin.elapsed().saturating_sub(since)
        };
        if oldest > 0 {
            waited(oldest)
        } else {
            Duration::ZERO
        }
    }

    /// Closes the queue to new texts. Those in it are still given out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_all();
    }

    /// Closes the queue and takes all texts out of it.
    pub(crate) fn close_and_clear(&self) -> Vec<QueuedText> {
        let mut state = self.lock();
        state.closed = true;
        let mut entries = std::mem::take(&mut state.singles);
        entries.append(&mut state.lists);
        self.publish(&state);
        drop(state);
        self.arrival.notify_all();
        let taken = |entry: &QueuedText| entry.claim.take();
        entries.into_iter().filter(taken).collect()
    }

    /// The number of entries, including void ones.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.lock().len()
    }

    /// Locks the state. No critical section can panic half-way, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
