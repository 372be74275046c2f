//! Texts that wait for the engine, oldest first within their class.
//!
//! Takes encoded texts, gives batches. Bounded by [`Slots`](super::Slots): a text has its slot
//! before it comes here. Texts whose client has left, and those whose time is up, never reach the
//! engine.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fill::{BatchLimits, Filling, Lead};
use super::slots::{Claim, Class, Ticket};
use super::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError};
use crate::error::Refusal;
use crate::model::Encoded;

/// The answer to one text, or why there is none.
pub(crate) type Answer = Result<Answered, Refusal>;

/// What the engine says to one text.
#[derive(Debug, PartialEq)]
pub(crate) struct Answered {
    /// One value a class.
    pub(crate) logits: Vec<f32>,
    /// How long its batch spent in the engine.
    pub(crate) computed: Duration,
}

/// One text in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) encoded: Encoded,
    pub(crate) since: Instant,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// When nobody wants the answer any more.
    deadline: Option<Instant>,
    claim: Claim,
}

impl Waiting {
    /// Puts a text under its client's ticket.
    pub(crate) fn new(
        ticket: &Ticket,
        encoded: Encoded,
        (since, deadline): (Instant, Option<Instant>),
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        ticket.settle(encoded.ids.len());
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

/// How long the engine's thread waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// At most so long.
    Limited(Duration),
    /// Until there is some, or the queue is closed.
    Endless,
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
    /// What stands in it, for those who do not take the lock.
    texts: AtomicUsize,
    tokens: AtomicUsize,
    /// When the oldest came: microseconds from `origin`, plus one; 0 when there is none.
    oldest: AtomicUsize,
    origin: Instant,
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
    singles: VecDeque<Waiting>,
    lists: VecDeque<Waiting>,
    lead: Lead,
    closed: bool,
    /// Whether the engine's thread sleeps until something arrives. Waking it is a system call, also
    /// when it is awake.
    sleeping: bool,
    /// Entries at which those whose clients have left are looked for: twice the number of living ones
    /// after the last time.
    sweep_at: usize,
}

/// Entries that are not worth looking through.
const SWEEP_MIN: usize = 64;

impl State {
    fn class(&mut self, class: Class) -> &mut VecDeque<Waiting> {
        match class {
            Class::Single => &mut self.singles,
            Class::List => &mut self.lists,
        }
    }

    fn len(&self) -> usize {
        self.singles.len() + self.lists.len()
    }

    /// Takes entries off the front of a class until one is to be computed, and gives its tokens.
    fn front(&mut self, class: Class, now: Instant, expired: &mut Vec<Waiting>) -> Option<usize> {
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

    /// The next batch within `limits`; those whose time is up go to `expired`.
    fn fill(
        &mut self,
        limits: BatchLimits,
        now: Instant,
        expired: &mut Vec<Waiting>,
    ) -> Vec<Waiting> {
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
            // Its client may have left since it was looked at.
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
            state: Mutex::new(State {
                sweep_at: SWEEP_MIN,
                ..State::default()
            }),
            arrival: Condvar::new(),
            texts: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
            oldest: AtomicUsize::new(0),
            origin: Instant::now(),
        }
    }

    /// Adds the entries of one request at the end of their class, in one piece.
    ///
    /// Gives them back when the queue is closed.
    pub(crate) fn push(&self, entries: Vec<Waiting>) -> Result<(), Vec<Waiting>> {
        let Some(class) = entries.first().map(|entry| entry.claim.class()) else {
            return Ok(());
        };
        let mut state = self.lock();
        if state.closed {
            return Err(entries);
        }
        if state.len() + entries.len() > state.sweep_at {
            // Slots bound the living; without this, clients that come and go while the engine is
            // busy would leave their entries here without bound.
            state.singles.retain(|entry| !entry.claim.is_void());
            state.lists.retain(|entry| !entry.claim.is_void());
            state.sweep_at = SWEEP_MIN.max(2 * (state.len() + entries.len()));
            self.publish(&state);
        }
        if state.len() == 0 {
            self.oldest
                .store(self.micros(entries[0].since), Ordering::Relaxed);
        }
        let tokens = entries.iter().map(Waiting::tokens).sum();
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

    /// The next batch: everything that waits, within `limits`. Those whose time is up are refused
    /// instead.
    pub(crate) fn take(&self, limits: BatchLimits, patience: Patience) -> Work {
        let mut state = self.lock();
        let mut patience = patience;
        loop {
            let mut expired = Vec::new();
            let batch = state.fill(limits, Instant::now(), &mut expired);
            self.publish(&state);
            if !batch.is_empty() || !expired.is_empty() {
                drop(state);
                for entry in expired {
                    // Its client may have left as well.
                    let _ = entry.reply.send(Err(Refusal::Deadline));
                }
                if !batch.is_empty() {
                    return Work::Batch(batch);
                }
                state = self.lock();
                continue;
            }
            if state.closed {
                return Work::Closed;
            }
            state = match patience {
                Patience::None => return Work::None,
                Patience::Endless => self.sleep(state),
                Patience::Limited(time) => {
                    patience = Patience::None;
                    self.sleep_at_most(state, time)
                }
            };
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
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
        mut state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        state.sleeping = true;
        let waited = self.arrival.wait_timeout(state, time);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.sleeping = false;
        state
    }

    /// How much waits, entries of those who have left included. Takes no lock: the engine's thread
    /// asks again and again while its device is busy.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            texts: self.texts.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
        }
    }

    /// Publishes what stands in the queue; called before its lock is given back.
    fn publish(&self, state: &State) {
        let entries = || state.singles.iter().chain(&state.lists);
        let tokens = entries().map(Waiting::tokens).sum();
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

    /// Refuses further entries; those inside are still given out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_all();
    }

    /// Refuses further entries and takes out those inside.
    pub(crate) fn close_and_clear(&self) -> Vec<Waiting> {
        let mut state = self.lock();
        state.closed = true;
        let mut entries = std::mem::take(&mut state.singles);
        entries.append(&mut state.lists);
        self.publish(&state);
        drop(state);
        self.arrival.notify_all();
        let taken = |entry: &Waiting| entry.claim.take();
        entries.into_iter().filter(taken).collect()
    }

    /// Entries that stand in it, dead ones included.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.lock().len()
    }

    /// No critical section here can panic half-way, so a poisoned lock is as good as a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
