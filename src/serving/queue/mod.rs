//! Texts that wait for the engine: their slots, their order, and the selection of the next batch.

mod fill;
mod slots;
mod sync;
#[cfg(test)]
mod tests;
mod waiting;

pub use self::fill::BatchLimits;
pub(crate) use self::slots::{Class, QueueFull, SlotLimits, Slots, Ticket};
pub(crate) use self::waiting::{Dequeued, Queue, QueuedText, Reply, TextOutput, WaitTime};
