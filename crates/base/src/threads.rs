//! Which threads work for an engine.
//!
//! A thread says so itself, by its id, before it does any work. A name could be read before it is set, and says
//! nothing about who chose it.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// What an engine's thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineWork {
    /// Loads a model, which happens once.
    Loading,
    /// Computes batches.
    Batches,
}

/// The work of the engine's threads, by their ids.
static ENGINE: Mutex<Option<HashMap<u32, EngineWork>>> = Mutex::new(None);

/// Marks the current thread as an engine's, until it is dropped. It cannot move to another thread.
#[derive(Debug)]
#[must_use = "the thread counts as the engine's only while this lives"]
pub struct EngineThread {
    id: u32,
    not_send: PhantomData<*const ()>,
}

impl EngineThread {
    /// Marks the current thread.
    pub fn enter(work: EngineWork) -> Self {
        let id = current();
        engine(|threads| threads.insert(id, work));
        Self {
            id,
            not_send: PhantomData,
        }
    }

    /// Says that the thread does other work from now on.
    pub fn turn_to(&self, work: EngineWork) {
        engine(|threads| threads.insert(self.id, work));
    }

    /// All threads that are marked now, by their ids.
    pub fn all() -> HashMap<u32, EngineWork> {
        engine(|threads| threads.clone())
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        engine(|threads| threads.remove(&self.id));
    }
}

fn engine<T>(work: impl FnOnce(&mut HashMap<u32, EngineWork>) -> T) -> T {
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
        let work = || EngineThread::all().get(&id).copied();
        let mark = EngineThread::enter(EngineWork::Loading);
        assert_eq!(work(), Some(EngineWork::Loading));
        mark.turn_to(EngineWork::Batches);
        assert_eq!(work(), Some(EngineWork::Batches));
        let other = std::thread::spawn(|| {
            let mark = EngineThread::enter(EngineWork::Batches);
            assert!(EngineThread::all().contains_key(&current()));
            drop(mark);
            current()
        });
        let other = other.join().unwrap();
        assert!(other != id && !EngineThread::all().contains_key(&other));
        drop(mark);
        assert_eq!(work(), None);
    }
}
