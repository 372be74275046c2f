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

/// What a thread said of itself.
#[derive(Debug, Clone, Copy)]
enum Mark {
    Work(EngineWork),
    /// It helps the thread with this id.
    Helps(u32),
}

/// The engine's threads, by their ids.
static ENGINE: Mutex<Option<HashMap<u32, Mark>>> = Mutex::new(None);

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
        Self::mark(Mark::Work(work))
    }

    /// Marks the current thread as one that does what the engine's thread with the id `engine` does.
    pub fn help(engine: ThreadId) -> Self {
        Self::mark(Mark::Helps(engine.0))
    }

    fn mark(mark: Mark) -> Self {
        let id = current();
        engine(|threads| threads.insert(id, mark));
        Self {
            id,
            not_send: PhantomData,
        }
    }

    /// Says that the thread does other work from now on.
    pub fn turn_to(&self, work: EngineWork) {
        engine(|threads| threads.insert(self.id, Mark::Work(work)));
    }

    /// All threads that are marked now, by their ids. One that helps a thread that is not marked computes batches.
    pub fn all() -> HashMap<u32, EngineWork> {
        engine(|threads| {
            let work = |mark: &Mark| match mark {
                Mark::Work(work) => *work,
                Mark::Helps(leader) => match threads.get(leader) {
                    Some(Mark::Work(work)) => *work,
                    _ => EngineWork::Batches,
                },
            };
            threads.iter().map(|(id, mark)| (*id, work(mark))).collect()
        })
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        engine(|threads| threads.remove(&self.id));
    }
}

/// The system's id of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadId(u32);

impl ThreadId {
    /// That of the current thread.
    pub fn current() -> Self {
        Self(current())
    }
}

fn engine<T>(work: impl FnOnce(&mut HashMap<u32, Mark>) -> T) -> T {
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

    fn mark_leader(ThreadId(id): ThreadId, work: EngineWork) {
        engine(|threads| threads.insert(id, Mark::Work(work)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_is_marked_until_it_says_otherwise() {
        let id = current();
        let work = || EngineThread::all().get(&id).copied();
        let mark = EngineThread::enter(EngineWork::Loading);
        assert_eq!(work(), Some(EngineWork::Loading));
        mark.turn_to(EngineWork::Batches);
        assert_eq!(work(), Some(EngineWork::Batches));
        let leader = ThreadId::current();
        let other = std::thread::spawn(move || {
            let help = EngineThread::help(leader);
            let work = || EngineThread::all().get(&current()).copied();
            assert_eq!(work(), Some(EngineWork::Batches));
            mark_leader(leader, EngineWork::Loading);
            assert_eq!(work(), Some(EngineWork::Loading), "as its leader");
            drop(help);
            current()
        });
        let other = other.join().unwrap();
        assert!(other != id && !EngineThread::all().contains_key(&other));
        drop(mark);
        assert_eq!(work(), None);
    }
}
