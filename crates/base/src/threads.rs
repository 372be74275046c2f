//! Which threads compute batches.
//!
//! A thread says so itself, by its id, before it does any work. A name could be read before it is set, and says
//! nothing about who chose it.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// The ids of the engine's threads.
static ENGINE: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

/// Marks the current thread as one that computes batches, until it is dropped. It cannot move to another thread.
#[derive(Debug)]
#[must_use = "the thread counts as the engine's only while this lives"]
pub struct EngineThread {
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl EngineThread {
    /// Marks the current thread.
    pub fn enter() -> Self {
        let id = current();
        engine(|threads| threads.insert(id));
        Self {
            id,
            not_send: PhantomData,
        }
    }

    /// The ids of all threads that are marked now.
    pub fn all() -> HashSet<u32> {
        engine(|threads| threads.clone())
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        engine(|threads| threads.remove(&self.id));
    }
}

fn engine<T>(work: impl FnOnce(&mut HashSet<u32>) -> T) -> T {
    let mut threads = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    work(threads.get_or_insert_default())
}

/// The system's id of the current thread, as in `/proc/self/task`.
#[cfg(target_os = "linux")]
fn current() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

/// Nothing reads the times of threads on other systems.
#[cfg(not(target_os = "linux"))]
fn current() -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_is_marked_until_it_says_otherwise() {
        let id = current();
        let mark = EngineThread::enter();
        assert!(EngineThread::all().contains(&id));
        let other = std::thread::spawn(|| {
            let mark = EngineThread::enter();
            assert!(EngineThread::all().contains(&current()));
            drop(mark);
            current()
        });
        let other = other.join().unwrap();
        assert!(other != id && !EngineThread::all().contains(&other));
        drop(mark);
        assert!(!EngineThread::all().contains(&id));
    }
}
