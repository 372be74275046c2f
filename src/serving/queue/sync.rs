//! The locks and atomics of slots and queue. `tests/model` puts those of a model checker in their
//! place, which tries the orders in which threads may run.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
