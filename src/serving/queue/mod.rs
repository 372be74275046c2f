//! Texts that wait for the engine: their slots, their order, and which of them make the next batch.

mod fill;
mod slots;
mod sync;
#[cfg(test)]
mod tests;
mod waiting;

pub use self::fill::BatchLimits;
pub(crate) use self::slots::{Class, Full, Room, Slots, Ticket};
pub(crate) use self::waiting::{Answer, Answered, Patience, Queue, Waiting, Work};
