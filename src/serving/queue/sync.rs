//! The locks and atomics of slots and queue. `tests/model` replaces them by those of a model checker, which
//! explores thread interleavings.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
