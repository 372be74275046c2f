//! Threads that work on one thing together: a forward pass is some hundred short steps, each
//! shared out among the same threads.
//!
//! A step of BERT-base takes a fraction of a millisecond and one of a small model a few
//! microseconds, so handing one over must cost less than a microsecond. The threads therefore
//! wait for the next step spinning, and only sleep when none has come for some tens of
//! microseconds. Work is taken in chunks, whoever is free first: where another process takes a
//! core away, the others do its share.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt::{self, Debug, Formatter};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// Rounds of spinning before a worker sleeps: some tens of microseconds.
const SPINS_BEFORE_SLEEP: usize = 1 << 12;
/// Rounds of spinning before somebody who waits for the others lets another process run.
const SPINS_BEFORE_YIELD: usize = 1 << 10;

/// What a step does, called with the number of the thread, once by each of them.
type Job = *const (dyn Fn(usize) + Sync);

/// One cache line, so that threads do not disturb each other.
#[repr(align(64))]
#[derive(Default)]
struct Padded<T>(T);

struct TeamState {
    /// Counts the jobs; a new value is the signal to start.
    generation: Padded<AtomicUsize>,
    /// Workers that have not finished the job.
    running: Padded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// Which workers sleep, or are about to.
    sleeping: Vec<Padded<AtomicBool>>,
}

// SAFETY: `job` is written by the owner of the team only while no worker runs (`running` is 0),
// and read by workers only after they have seen the generation that was published after it.
unsafe impl Sync for TeamState {}
// SAFETY: the pointer in `job` is followed only while `Team::run` keeps what it points to.
unsafe impl Send for TeamState {}

/// The calling thread and its helpers.
pub struct Team {
    shared: Arc<TeamState>,
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
    /// A team of `threads`, the calling one included.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let helpers = threads.get() - 1;
        let shared = Arc::new(TeamState {
            generation: Padded::default(),
            running: Padded::default(),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            sleeping: (0..helpers).map(|_| Padded::default()).collect(),
        });
        let mut team = Self {
            shared,
            workers: Vec::with_capacity(helpers),
        };
        for worker in 0..helpers {
            let shared = Arc::clone(&team.shared);
            let name = format!("engine-cpu-{}", worker + 1);
            let spawned = thread::Builder::new().name(name);
            team.workers
                .push(spawned.spawn(move || shared.serve(worker))?);
        }
        Ok(team)
    }

    /// The calling thread alone.
    pub fn solo() -> Self {
        let threads = NonZeroUsize::MIN;
        Self::new(threads).unwrap_or_else(|_| unreachable!("no thread is started"))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once on each thread, with numbers from 0; returns when all are done.
    ///
    /// # Panics
    /// When `work` panicked on any of them.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return work(0);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased, and this function does not return, nor unwind,
        // before every worker has finished with `work`.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work) };
        // SAFETY: no worker runs now, so none reads.
        unsafe { *shared.job.get() = Some(job) };
        shared
            .running
            .0
            .store(self.workers.len(), Ordering::Relaxed);
        // Sequentially consistent, as are the accesses of a worker that goes to sleep: either it
        // sees this generation, or we see that it sleeps.
        shared.generation.0.fetch_add(1, Ordering::SeqCst);
        for (sleeping, worker) in shared.sleeping.iter().zip(&self.workers) {
            if sleeping.0.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut spins = 0;
        while shared.running.0.load(Ordering::Acquire) != 0 {
            wait(&mut spins);
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        match mine {
            Err(panic) => resume_unwind(panic),
            Ok(()) if panicked => {
                resume_unwind(Box::new("an engine thread panicked") as Box<dyn Any + Send>)
            }
            Ok(()) => {}
        }
    }

    /// Calls `work` for `0..count` in chunks of `grain`, each chunk once, on whichever thread is
    /// free; its first argument is the number of the thread.
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
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its jobs; there is none of its own to report.
            let _ = worker.join();
        }
    }
}

impl TeamState {
    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        loop {
            if !self.next_job(worker, &mut seen) {
                return;
            }
            // SAFETY: `run` has published this job before the generation we have just seen, and
            // keeps it alive until `running` is 0.
            let work = unsafe { (*self.job.get()).map(|job| &*job) };
            if let Some(work) = work
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(worker + 1)))
            {
                // Dropping it may panic, too, and then nobody would count this worker down.
                std::mem::forget(panic);
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.running.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a generation that was not `seen`; false when the team ends.
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

fn wait(spins: &mut usize) {
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
        Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
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
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
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
