//! The bound on waiting texts: each has a slot, reserved before any work is done for it.
//!
//! A slot is released when the engine takes the text or its client leaves, whichever comes first. The two race
//! for the text's state, and exactly one wins. Lists may take only a share of the slots, so that single texts
//! find room too (in a queue with room for more than one list).

use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::sync::{Arc, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The kind of request that a text belongs to. Within a class: first come, first served. While both classes
/// wait, each gets half of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A request of one text.
    Single,
    /// A request of several texts.
    List,
}

impl Class {
    /// The class of a request of `texts` texts.
    pub(crate) fn of(texts: usize) -> Self {
        if texts == 1 { Self::Single } else { Self::List }
    }

    /// The other class.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Single => Self::List,
            Self::List => Self::Single,
        }
    }
}

/// The numbers of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotLimits {
    /// All slots.
    pub(crate) slots: usize,
    /// The part of them that lists may take.
    pub(crate) lists: usize,
}

/// Why there were no slots for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueFull {
    /// All slots are taken.
    Slots {
        /// The number of slots.
        max: usize,
    },
    /// The slots for lists are taken.
    Lists {
        /// Slots that lists may take.
        max: usize,
    },
}

/// The slots of waiting texts, with their metrics.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Packed [`TakenSlots`]: both change at once, so that nobody is refused because of a reservation that fails.
    taken: AtomicU64,
    max: AtomicUsize,
    lists_max: AtomicUsize,
    /// Tokens of the waiting texts by class; expected tokens for those being tokenized.
    tokens: [AtomicUsize; 2],
    depth: IntGauge,
    abandoned: IntCounter,
    /// Wakes a task that waits for slots.
    freed: Notify,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits, depth: IntGauge, abandoned: IntCounter) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicU64::new(0),
            max: AtomicUsize::new(limits.slots),
            lists_max: AtomicUsize::new(limits.lists),
            tokens: [AtomicUsize::new(0), AtomicUsize::new(0)],
            depth,
            abandoned,
            freed: Notify::new(),
        })
    }

    /// Raises the numbers of slots to `limits`. Returns whether any was lower.
    pub(crate) fn grow(&self, limits: SlotLimits) -> bool {
        let slots = self.max.fetch_max(limits.slots, Ordering::AcqRel) < limits.slots;
        let lists = self.lists_max.fetch_max(limits.lists, Ordering::AcqRel) < limits.lists;
        if slots || lists {
            self.freed.notify_waiters();
        }
        slots || lists
    }

    /// Waits until a slot is free for each text. More than [`max`](Self::max) would wait for ever. When there are
    /// too few, `grow` may add slots, and returns whether it did.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        class: Class,
        tokens: &[usize],
        grow: impl Fn() -> bool,
    ) -> Vec<Ticket> {
        loop {
            // Registers before it tries, so that a slot released in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.reserve(class, tokens) {
                Ok(tickets) => return tickets,
                Err(_) if grow() => {}
                Err(_) => freed.await,
            }
        }
    }

    /// Reserves a slot for each text, given by its expected tokens; all or none.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        class: Class,
        tokens: &[usize],
    ) -> Result<Vec<Ticket>, QueueFull> {
        let count = tokens.len();
        let max = self.max.load(Ordering::Acquire);
        let lists_max = self.lists_max.load(Ordering::Acquire);
        let reserve = |packed| {
            let taken = TakenSlots::unpack(packed).with(class, count)?;
            (taken.all <= max && taken.lists <= lists_max).then(|| taken.pack())
        };
        let reserved = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve);
        if let Err(packed) = reserved {
            let lists = TakenSlots::unpack(packed).lists.saturating_add(count);
            return Err(if class == Class::List && lists > lists_max {
                QueueFull::Lists { max: lists_max }
            } else {
                QueueFull::Slots { max }
            });
        }
        self.depth.add(count as i64);
        let sum = tokens.iter().sum();
        self.tokens[class as usize].fetch_add(sum, Ordering::Relaxed);
        let ticket = |tokens: &usize| Ticket {
            slot: Arc::new(TextSlot {
                state: AtomicU8::new(WAITING),
                tokens: AtomicU32::new(u32::try_from(*tokens).unwrap_or(u32::MAX)),
                class,
            }),
            slots: Arc::clone(self),
        };
        Ok(tokens.iter().map(ticket).collect())
    }

    /// The maximum number of slots for one request of this class.
    pub(crate) fn max(&self, class: Class) -> usize {
        let all = self.max.load(Ordering::Acquire);
        match class {
            Class::Single => all,
            Class::List => all.min(self.lists_max.load(Ordering::Acquire)),
        }
    }

    /// Tokens of the waiting texts of a class.
    pub(crate) fn tokens(&self, class: Class) -> usize {
        self.tokens[class as usize].load(Ordering::Relaxed)
    }

    /// Slots taken, and the part of them that lists hold.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> (usize, usize) {
        let taken = TakenSlots::unpack(self.taken.load(Ordering::Acquire));
        (taken.all, taken.lists)
    }

    fn release(&self, slot: &TextSlot) {
        let tokens = slot.tokens.load(Ordering::Relaxed) as usize;
        self.tokens[slot.class as usize].fetch_sub(tokens, Ordering::Relaxed);
        let one = match slot.class {
            Class::Single => 1,
            Class::List => 1 | 1 << TakenSlots::LISTS,
        };
        self.taken.fetch_sub(one, Ordering::AcqRel);
        self.depth.dec();
        self.freed.notify_one();
    }
}

/// How many slots are taken.
#[derive(Debug, Clone, Copy)]
struct TakenSlots {
    all: usize,
    /// The part of them that lists hold.
    lists: usize,
}

impl TakenSlots {
    /// Bit of the packed form from which on it has `lists`; below is `all`.
    const LISTS: u32 = 32;

    fn unpack(packed: u64) -> Self {
        Self {
            all: packed as u32 as usize,
            lists: (packed >> Self::LISTS) as usize,
        }
    }

    fn pack(self) -> u64 {
        self.all as u64 | (self.lists as u64) << Self::LISTS
    }

    /// With `count` more of a class; `None` if that is more than can be counted.
    fn with(self, class: Class, count: usize) -> Option<Self> {
        let all = self.all.checked_add(count)?;
        let is_countable = u32::try_from(all).is_ok();
        is_countable.then_some(Self {
            all,
            lists: match class {
                Class::Single => self.lists,
                Class::List => self.lists + count,
            },
        })
    }
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// The slot of one waiting text, shared by its [`Ticket`] and its [`Claim`].
#[derive(Debug)]
pub(crate) struct TextSlot {
    state: AtomicU8,
    tokens: AtomicU32,
    class: Class,
}

/// The client's side of a waiting text. Dropping it before the engine takes the text removes the text from the
/// queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    slot: Arc<TextSlot>,
    slots: Arc<Slots>,
}

impl Ticket {
    /// Moves the slot from `WAITING` to state `to` and releases it. Returns false if the other side was first.
    fn release_once(slot: &TextSlot, slots: &Slots, to: u8) -> bool {
        let won = slot
            .state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if won {
            slots.release(slot);
        }
        won
    }

    /// Replaces the expected number of tokens by the actual one, before the text is queued.
    pub(crate) fn set_tokens(&self, tokens: usize) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let expected = self.slot.tokens.swap(tokens, Ordering::Relaxed);
        let total = &self.slots.tokens[self.slot.class as usize];
        // In this order, so that the sum never falls below zero.
        total.fetch_add(tokens as usize, Ordering::Relaxed);
        total.fetch_sub(expected as usize, Ordering::Relaxed);
    }

    /// The number of tokens: the expected one until the actual one is known.
    pub(crate) fn tokens(&self) -> usize {
        self.slot.tokens.load(Ordering::Relaxed) as usize
    }

    /// Makes the queue's side of the text.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            slot: Arc::clone(&self.slot),
            slots: Arc::clone(&self.slots),
        }
    }

    /// Releases the slot of a text whose request is refused. It does not count as abandoned.
    pub(crate) fn release(self) {
        Self::release_once(&self.slot, &self.slots, TAKEN);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if Self::release_once(&self.slot, &self.slots, ABANDONED) {
            self.slots.abandoned.inc();
        }
    }
}

/// The queue's side of a waiting text.
#[derive(Debug)]
pub(crate) struct Claim {
    slot: Arc<TextSlot>,
    slots: Arc<Slots>,
}

impl Claim {
    /// The class of the text.
    pub(crate) fn class(&self) -> Class {
        self.slot.class
    }

    /// Whether its client has left or its request was refused.
    pub(crate) fn is_void(&self) -> bool {
        self.slot.state.load(Ordering::Acquire) != WAITING
    }

    /// Takes the text for the engine; false if its client has left.
    pub(crate) fn take(&self) -> bool {
        Ticket::release_once(&self.slot, &self.slots, TAKEN)
    }
}
