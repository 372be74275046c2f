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
            .map_err(|_| Refusal::QueueFull { max: self.max })?;
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
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Waiting>,
    closed: bool,
}

impl Queue {
    /// A queue for at most `max` living entries.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrival: Condvar::new(),
            sweep_at: 2 * max,
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
        }
        state.entries.extend(entries);
        drop(state);
        self.arrival.notify_one();
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
            state = self
                .arrival
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
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
        let entries = std::mem::take(&mut state.entries);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gauges() -> (IntGauge, IntCounter) {
        (
            IntGauge::new("depth", "d").unwrap(),
            IntCounter::new("abandoned", "a").unwrap(),
        )
    }

    /// A text of `tokens` tokens that carries its number as its first id.
    fn encoded(number: usize, tokens: usize) -> Encoded {
        let mut ids = vec![0; tokens];
        ids[0] = u32::try_from(number).unwrap();
        Encoded {
            type_ids: vec![0; tokens],
            ids,
            truncated: false,
        }
    }

    fn waiting(ticket: &Ticket, number: usize, tokens: usize) -> Waiting {
        let (reply, _) = oneshot::channel();
        Waiting::new(ticket, encoded(number, tokens), Instant::now(), reply)
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A list of texts of these lengths comes in.
        Arrive(Vec<usize>),
        /// The client at this position, modulo those there are, leaves.
        Leave(usize),
        /// The engine takes a batch.
        Take(BatchLimits),
    }

    fn step() -> impl Strategy<Value = Step> {
        let limits = (1..40usize, 1..6usize).prop_map(|(tokens_max, texts_max)| BatchLimits {
            tokens_max,
            texts_max,
        });
        prop_oneof![
            prop::collection::vec(1..20usize, 1..5).prop_map(Step::Arrive),
            any::<usize>().prop_map(Step::Leave),
            limits.prop_map(Step::Take),
        ]
    }

    proptest! {
        /// Against a plain list: first come first served, limits kept, bounds kept, and each
        /// text either taken or abandoned, once.
        #[test]
        fn the_queue_is_a_list_of_those_who_stay(steps in prop::collection::vec(step(), 0..200)) {
            const MAX: usize = 8;
            let (depth, abandoned) = gauges();
            let slots = Slots::new(MAX, depth.clone(), abandoned.clone());
            let queue = Queue::new(MAX);
            let (mut clients, mut model): (Vec<(usize, Ticket)>, Vec<(usize, usize)>) = Default::default();
            let (mut number, mut left) = (0, 0);
            for step in steps {
                match step {
                    Step::Arrive(lengths) => match slots.reserve(lengths.len()) {
                        Ok(tickets) => {
                            let mut entries = Vec::new();
                            for (ticket, tokens) in tickets.into_iter().zip(lengths) {
                                entries.push(waiting(&ticket, number, tokens));
                                model.push((number, tokens));
                                clients.push((number, ticket));
                                number += 1;
                            }
                            prop_assert!(queue.push(entries).is_ok());
                        }
                        Err(refusal) => {
                            prop_assert!(model.len() + lengths.len() > MAX);
                            prop_assert_eq!(refusal, Refusal::QueueFull { max: MAX });
                        }
                    },
                    Step::Leave(position) if !clients.is_empty() => {
                        let (number, ticket) = clients.swap_remove(position % clients.len());
                        left += usize::from(model.iter().any(|(waiting, _)| *waiting == number));
                        model.retain(|(waiting, _)| *waiting != number);
                        drop(ticket);
                    }
                    Step::Leave(_) => {}
                    Step::Take(limits) => match queue.take(limits, false) {
                        Work::Batch(batch) => {
                            let found: Vec<usize> =
                                batch.iter().map(|entry| entry.encoded.ids[0] as usize).collect();
                            let expected: Vec<(usize, usize)> = model.drain(..found.len()).collect();
                            let numbers: Vec<usize> = expected.iter().map(|(n, _)| *n).collect();
                            prop_assert_eq!(&found, &numbers);
                            let tokens: usize = expected.iter().map(|(_, t)| t).sum();
                            prop_assert!(found.len() <= limits.texts_max);
                            prop_assert!(tokens <= limits.tokens_max || found.len() == 1);
                            let next = model.first().map_or(usize::MAX / 2, |(_, t)| *t);
                            prop_assert!(
                                found.len() == limits.texts_max || tokens + next > limits.tokens_max,
                                "the batch had room for the next text"
                            );
                        }
                        Work::None => prop_assert!(model.is_empty()),
                        Work::Closed => prop_assert!(false, "nobody closed the queue"),
                    },
                }
                prop_assert_eq!(depth.get(), model.len() as i64);
                prop_assert_eq!(abandoned.get(), left as u64);
            }
        }
    }

    #[test]
    fn entries_of_clients_who_left_do_not_pile_up_while_the_engine_is_busy() {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(4, depth.clone(), abandoned);
        let queue = Queue::new(4);
        for number in 0..1000 {
            let tickets = slots.reserve(1).unwrap();
            queue.push(vec![waiting(&tickets[0], number, 1)]).unwrap();
        }
        assert!(queue.lock().entries.len() <= 8);
        assert_eq!(depth.get(), 0);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_holds_and_takes_nothing() {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(4, depth, abandoned);
        let queue = Queue::new(4);
        let tickets = slots.reserve(2).unwrap();
        queue.push(vec![waiting(&tickets[0], 0, 1)]).unwrap();
        queue.close();
        assert!(queue.push(vec![waiting(&tickets[1], 1, 1)]).is_err());
        let limits = BatchLimits {
            tokens_max: 9,
            texts_max: 9,
        };
        assert!(matches!(queue.take(limits, true), Work::Batch(batch) if batch.len() == 1));
        assert!(matches!(queue.take(limits, true), Work::Closed));
    }

    /// Clients that come, wait a moment and leave, against an engine that takes all the time:
    /// whoever wins each race, the sums are right in the end.
    #[test]
    fn taken_and_abandoned_add_up_under_contention() {
        let (depth, abandoned) = gauges();
        let slots = Slots::new(64, depth.clone(), abandoned.clone());
        let queue = Queue::new(64);
        let limits = BatchLimits {
            tokens_max: 100,
            texts_max: 7,
        };
        let mut taken = 0;
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let (slots, queue) = (&slots, &queue);
                    scope.spawn(move || {
                        for number in 0..5000 {
                            let Ok(tickets) = slots.reserve(1 + number % 3) else {
                                continue;
                            };
                            let entry = |ticket| waiting(ticket, number, 1);
                            queue.push(tickets.iter().map(entry).collect()).unwrap();
                            for _ in 0..(number * client) % 50 {
                                std::hint::spin_loop();
                            }
                        }
                    })
                })
                .collect();
            let engine = scope.spawn(|| {
                let mut taken = 0;
                while let Work::Batch(batch) = queue.take(limits, true) {
                    taken += batch.len() as u64;
                }
                taken
            });
            for client in clients {
                client.join().unwrap();
            }
            queue.close();
            taken = engine.join().unwrap();
        });
        assert_eq!(depth.get(), 0);
        assert_eq!(slots.taken.load(Ordering::Acquire), 0);
        assert!(
            taken > 0 && abandoned.get() > 0,
            "{taken} taken, {} abandoned",
            abandoned.get()
        );
    }
}
