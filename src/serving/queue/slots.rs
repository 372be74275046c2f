//! The bound on waiting texts: a slot for each, taken before any work is done for it.
//!
//! A slot is given back when the engine takes the text or its client leaves, whichever comes first;
//! the two race for the text's [`Ticket`], and exactly one wins. Lists may take a part of the slots
//! only, so that single texts find room beside them (in a queue with room for more than one list).

use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::sync::{Arc, AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// What a text came in. Within a class it is first come, first served; between the classes the engine
/// is shared in halves while both wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A request of one text.
    Single,
    /// A request of several.
    List,
}

impl Class {
    /// The class of a request of `texts` texts.
    pub(crate) fn of(texts: usize) -> Self {
        if texts == 1 { Self::Single } else { Self::List }
    }

    /// The class beside it.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Single => Self::List,
            Self::List => Self::Single,
        }
    }
}

/// How many slots there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// For all.
    pub(crate) slots: usize,
    /// Of these, for lists.
    pub(crate) lists: usize,
}

/// Why there was no room for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// For anybody.
    Slots {
        /// Slots there are.
        max: usize,
    },
    /// For lists.
    Lists {
        /// Slots that lists may take.
        max: usize,
    },
}

/// The slots, and what the operator sees of them.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: AtomicUsize,
    max: AtomicUsize,
    /// Of those taken, by lists.
    taken_by_lists: AtomicUsize,
    lists_max: AtomicUsize,
    /// Tokens of the texts that wait, by class; of those being tokenized, what they probably have.
    tokens: [AtomicUsize; 2],
    depth: IntGauge,
    abandoned: IntCounter,
    /// Wakes one of those who wait for room.
    freed: Notify,
}

impl Slots {
    pub(crate) fn new(room: Room, depth: IntGauge, abandoned: IntCounter) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(room.slots),
            taken_by_lists: AtomicUsize::new(0),
            lists_max: AtomicUsize::new(room.lists),
            tokens: [AtomicUsize::new(0), AtomicUsize::new(0)],
            depth,
            abandoned,
            freed: Notify::new(),
        })
    }

    /// Raises the number of slots to `room`; whether there were fewer.
    pub(crate) fn grow(&self, room: Room) -> bool {
        let slots = self.max.fetch_max(room.slots, Ordering::AcqRel) < room.slots;
        let lists = self.lists_max.fetch_max(room.lists, Ordering::AcqRel) < room.lists;
        if slots || lists {
            self.freed.notify_waiters();
        }
        slots || lists
    }

    /// Waits for a slot for each of the texts, however long that takes; at most [`max`](Self::max) are ever given.
    /// `grow` is asked for more slots when there is no room, and says whether there are more now.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        class: Class,
        tokens: &[usize],
        grow: impl Fn() -> bool,
    ) -> Vec<Ticket> {
        loop {
            // Listens before it looks, so that a slot given back in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.reserve(class, tokens) {
                Ok(tickets) => return tickets,
                Err(_) if grow() => {}
                Err(_) => freed.await,
            }
        }
    }

    /// Takes a slot for each of the texts, given by their tokens; all or none.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        class: Class,
        tokens: &[usize],
    ) -> Result<Vec<Ticket>, Full> {
        let count = tokens.len();
        let max = self.max.load(Ordering::Acquire);
        let lists_max = self.lists_max.load(Ordering::Acquire);
        if class == Class::List && !add_within(&self.taken_by_lists, count, lists_max) {
            return Err(Full::Lists { max: lists_max });
        }
        if !add_within(&self.taken, count, max) {
            if class == Class::List {
                self.taken_by_lists.fetch_sub(count, Ordering::AcqRel);
            }
            return Err(Full::Slots { max });
        }
        self.depth.add(count as i64);
        let sum = tokens.iter().sum();
        self.tokens[class as usize].fetch_add(sum, Ordering::Relaxed);
        let ticket = |tokens: &usize| Ticket {
            place: Arc::new(Place {
                state: AtomicU8::new(WAITING),
                tokens: AtomicU32::new(u32::try_from(*tokens).unwrap_or(u32::MAX)),
                class,
            }),
            slots: Arc::clone(self),
        };
        Ok(tokens.iter().map(ticket).collect())
    }

    /// Slots that one request of this class can have at most.
    pub(crate) fn max(&self, class: Class) -> usize {
        let all = self.max.load(Ordering::Acquire);
        match class {
            Class::Single => all,
            Class::List => all.min(self.lists_max.load(Ordering::Acquire)),
        }
    }

    /// Tokens of the texts that wait in a class.
    pub(crate) fn tokens(&self, class: Class) -> usize {
        self.tokens[class as usize].load(Ordering::Relaxed)
    }

    /// Slots taken, and of these by lists.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Acquire);
        (load(&self.taken), load(&self.taken_by_lists))
    }

    fn release(&self, place: &Place) {
        let tokens = place.tokens.load(Ordering::Relaxed) as usize;
        self.tokens[place.class as usize].fetch_sub(tokens, Ordering::Relaxed);
        if place.class == Class::List {
            self.taken_by_lists.fetch_sub(1, Ordering::AcqRel);
        }
        self.taken.fetch_sub(1, Ordering::AcqRel);
        self.depth.dec();
        self.freed.notify_one();
    }
}

/// Adds `count` unless that would exceed `max`.
fn add_within(taken: &AtomicUsize, count: usize, max: usize) -> bool {
    let room = |taken: usize| taken.checked_add(count).filter(|taken| *taken <= max);
    taken
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
        .is_ok()
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// A text's place among the waiting: shared by its client and the queue.
#[derive(Debug)]
pub(crate) struct Place {
    state: AtomicU8,
    tokens: AtomicU32,
    class: Class,
}

/// The client's side of a waiting text: dropped before the engine has taken the text, it takes
/// the text out of the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    place: Arc<Place>,
    slots: Arc<Slots>,
}

impl Ticket {
    /// Whoever moves the state away from `WAITING` gives the slot back.
    fn leave(place: &Place, slots: &Slots, to: u8) -> bool {
        let won = place
            .state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if won {
            slots.release(place);
        }
        won
    }

    /// Says how many tokens the text really has, before it is queued.
    pub(crate) fn settle(&self, tokens: usize) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let guess = self.place.tokens.swap(tokens, Ordering::Relaxed);
        let total = &self.slots.tokens[self.place.class as usize];
        // In this order, so that the sum is never below zero in between.
        total.fetch_add(tokens as usize, Ordering::Relaxed);
        total.fetch_sub(guess as usize, Ordering::Relaxed);
    }

    /// The queue's side of the text.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            place: Arc::clone(&self.place),
            slots: Arc::clone(&self.slots),
        }
    }

    /// Gives the slot back for a text that will not be computed after all, its request being
    /// refused.
    pub(crate) fn release(self) {
        Self::leave(&self.place, &self.slots, TAKEN);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if Self::leave(&self.place, &self.slots, ABANDONED) {
            self.slots.abandoned.inc();
        }
    }
}

/// The queue's side of a waiting text.
#[derive(Debug)]
pub(crate) struct Claim {
    place: Arc<Place>,
    slots: Arc<Slots>,
}

impl Claim {
    /// What the text came in.
    pub(crate) fn class(&self) -> Class {
        self.place.class
    }

    /// Whether its client has left, or its request was refused.
    pub(crate) fn is_void(&self) -> bool {
        self.place.state.load(Ordering::Acquire) != WAITING
    }

    /// Takes the text for the engine; false when its client was first.
    pub(crate) fn take(&self) -> bool {
        Ticket::leave(&self.place, &self.slots, TAKEN)
    }
}
