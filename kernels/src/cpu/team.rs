//! A team of threads that work on one job at a time. A forward pass is some hundred short jobs, which the
//! same threads share.
//!
//! A job takes a fraction of a millisecond for BERT-base and a few microseconds for a small model, so
//! starting one must cost less than a microsecond. Threads therefore spin while they wait for the next job,
//! and sleep only when none has come for some tens of microseconds. A free thread takes the next chunk of
//! work: when another process occupies a core, the other threads do its share.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt::{self, Debug, Formatter};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// Spins of a worker before it sleeps: some tens of microseconds.
const SPINS_BEFORE_SLEEP: usize = 1 << 12;
/// Spins of the caller, waiting for the workers, before it yields to another process.
const SPINS_BEFORE_YIELD: usize = 1 << 10;

/// A function that each thread calls once, with the number of the thread.
type Job = *const (dyn Fn(usize) + Sync);

/// A value in a cache line of its own, against false sharing.
#[repr(align(64))]
#[derive(Default)]
struct Padded<T>(T);

/// The state that the threads share.
struct TeamState {
    /// The number of jobs so far; a new value is the signal to start.
    generation: Padded<AtomicUsize>,
    /// The number of workers that have not finished the job.
    running: Padded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// Whether each worker sleeps or is about to.
    sleeping: Vec<Padded<AtomicBool>>,
}

// SAFETY: the owner of the team writes `job` only while no worker runs (`running` is 0), and a worker
// reads it only after it has seen the generation that was published after the write.
unsafe impl Sync for TeamState {}
// SAFETY: the pointer in `job` is dereferenced only while `Team::run` keeps its target alive.
unsafe impl Send for TeamState {}

/// A team of threads: the calling thread and its workers.
pub struct Team {
    state: Arc<TeamState>,
    workers: Vec<JoinHandle<()>>,
}

impl Debug for Team {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team")
            .field("threads", &self.threads())
            .finish()
    }
}

impl Team {
    /// Starts a team of `threads`, including the calling thread. Each started thread calls `enter` before it works,
    /// and drops the result when it ends.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn new<T: 'static>(
        threads: NonZeroUsize,
        enter: impl Fn() -> T + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let workers = threads.get() - 1;
        let state = Arc::new(TeamState {
            generation: Padded::default(),
            running: Padded::default(),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            sleeping: (0..workers).map(|_| Padded::default()).collect(),
        });
        let mut team = Self {
            state,
            workers: Vec::with_capacity(workers),
        };
        for worker in 0..workers {
            let state = Arc::clone(&team.state);
            let enter = enter.clone();
            let name = format!("engine-cpu-{}", worker + 1);
            let spawned = thread::Builder::new().name(name);
            let run = move || {
                let _entered = enter();
                state.run_worker(worker);
            };
            team.workers.push(spawned.spawn(run)?);
        }
        Ok(team)
    }

    /// A team of only the calling thread.
    pub fn solo() -> Self {
        let threads = NonZeroUsize::MIN;
        Self::new(threads, || ()).unwrap_or_else(|_| unreachable!("no thread is started"))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once on each thread, with the number of the thread from 0; returns when all are done.
    ///
    /// # Panics
    /// When `work` panicked on any thread.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return work(0);
        }
        let state = &*self.state;
        // SAFETY: only the lifetime is erased, and this function neither returns nor unwinds before every
        // worker has finished with `work`.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work) };
        // SAFETY: no worker runs now, so none reads the job.
        unsafe { *state.job.get() = Some(job) };
        state.running.0.store(self.workers.len(), Ordering::Relaxed);
        // Sequentially consistent, like the accesses of a worker that goes to sleep: either the worker sees
        // this generation, or we see that it sleeps.
        state.generation.0.fetch_add(1, Ordering::SeqCst);
        for (sleeping, worker) in state.sleeping.iter().zip(&self.workers) {
            if sleeping.0.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut spins = 0;
        while state.running.0.load(Ordering::Acquire) != 0 {
            spin_or_yield(&mut spins);
        }
        let panicked = state.panicked.swap(false, Ordering::Relaxed);
        match mine {
            Err(panic) => resume_unwind(panic),
            Ok(()) if panicked => {
                resume_unwind(Box::new("an engine thread panicked") as Box<dyn Any + Send>)
            }
            Ok(()) => {}
        }
    }

    /// Divides `0..count` into chunks of `grain` and calls `work` once for each chunk, on a free thread. The
    /// first argument of `work` is the number of the thread.
    ///
    /// # Panics
    /// When `work` panicked on any thread.
    pub fn share(
        &mut self,
        count: usize,
        grain: usize,
        work: &(dyn Fn(usize, Range<usize>) + Sync),
    ) {
        let grain = grain.max(1);
        if self.workers.is_empty() || count <= grain {
            return work(0, 0..count);
        }
        let next = Padded(AtomicUsize::new(0));
        let chunks = count.div_ceil(grain);
        self.run(&|member| {
            loop {
                let chunk = next.0.fetch_add(1, Ordering::Relaxed);
                if chunk >= chunks {
                    return;
                }
                let first = chunk * grain;
                work(member, first..count.min(first.saturating_add(grain)));
            }
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its jobs and does not panic itself.
            let _ = worker.join();
        }
    }
}

impl TeamState {
    /// The loop of a worker thread.
    fn run_worker(&self, worker: usize) {
        let mut seen = 0;
        loop {
            if !self.next_job(worker, &mut seen) {
                return;
            }
            // SAFETY: `run` published this job before the generation that was just seen, and keeps it alive
            // until `running` is 0.
            let work = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(work) = work
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(worker + 1)))
            {
                // Dropping the payload may panic, too, and `running` would never become 0.
                std::mem::forget(panic);
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.running.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a generation other than `seen`; returns false when the team ends.
    fn next_job(&self, worker: usize, seen: &mut usize) -> bool {
        let is_new = |seen: &mut usize| {
            let generation = self.generation.0.load(Ordering::SeqCst);
            let new = generation != *seen;
            *seen = generation;
            new
        };
        for _ in 0..SPINS_BEFORE_SLEEP {
            if is_new(seen) {
                return true;
            }
            std::hint::spin_loop();
        }
        let sleeping = &self.sleeping[worker].0;
        loop {
            sleeping.store(true, Ordering::SeqCst);
            let new = is_new(seen);
            if new || self.stop.load(Ordering::SeqCst) {
                sleeping.store(false, Ordering::Relaxed);
                return new;
            }
            thread::park();
        }
    }
}

fn spin_or_yield(spins: &mut usize) {
    *spins += 1;
    if *spins < SPINS_BEFORE_YIELD {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(threads: usize) -> Team {
        Team::new(NonZeroUsize::new(threads).unwrap(), || ()).unwrap()
    }

    #[test]
    fn every_chunk_is_done_once() {
        for threads in [1, 2, 5] {
            let mut team = team(threads);
            for round in 0..300 {
                let count = round % 67;
                let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                team.share(count, 1 + round % 9, &|member, range| {
                    assert!(member < threads);
                    for index in range {
                        done[index].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
                if round % 100 == 0 {
                    // Long enough for the workers to sleep.
                    thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_remains_usable() {
        let mut team = team(3);
        for guilty in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.run(&|member| assert!(member != guilty, "guilty"));
            }));
            assert!(result.is_err());
            let count = AtomicUsize::new(0);
            team.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 3);
        }
    }
}
