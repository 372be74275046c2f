//! CPU time of this process, by thread: what ran, and what was ready to run and had to wait.
//!
//! The engine's threads say so themselves ([`EngineThread`]). All others are the host's: sockets, HTTP, tokenizing,
//! encoding. What loading a model takes counts for neither. Linux accounts per thread; on other systems nothing is known.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use intentd_base::threads::{EngineThread, EngineWork};

/// Time of one or more threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadTime {
    /// Time that they ran.
    pub ran: Duration,
    /// Time that they were ready to run but waited for a core: behind threads of this process or of others, or because
    /// the process's CPU limit was used up.
    pub waited: Duration,
}

impl ThreadTime {
    /// The time since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }

    fn add(&mut self, more: Self) {
        self.ran += more.ran;
        self.waited += more.waited;
    }
}

/// CPU time of this process so far, including that of ended threads until they were last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// Time of all other threads.
    pub host: ThreadTime,
    /// Time of the threads that compute batches.
    pub engine: ThreadTime,
}

impl CpuTimes {
    /// The times since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            host: self.host.since(before.host),
            engine: self.engine.since(before.engine),
        }
    }

    /// CPU time that was not spent on batches. `spent` is the engine's time on batches, if it computes on its thread
    /// alone. The rest of that thread's time went into taking texts from the queue and replying.
    pub fn outside_batches(self, spent: Option<Duration>) -> Duration {
        let beside = spent.map(|spent| self.engine.ran.saturating_sub(spent));
        self.host.ran + beside.unwrap_or_default()
    }
}

/// Reads the CPU times of this process.
#[derive(Debug, Default)]
pub struct HostClock {
    /// The time of each thread at the last reading.
    threads: HashMap<u32, ThreadTime>,
    times: CpuTimes,
    engine_threads: usize,
}

impl HostClock {
    /// The times so far.
    pub fn read(&mut self) -> Option<CpuTimes> {
        self.read_from(Path::new("/proc/self/task"), &EngineThread::all())
    }

    /// The number of threads that computed batches at the last reading.
    pub fn engine_threads(&self) -> usize {
        self.engine_threads
    }

    fn read_from(&mut self, tasks: &Path, engine: &HashMap<u32, EngineWork>) -> Option<CpuTimes> {
        let mut seen = HashMap::with_capacity(self.threads.len());
        for task in std::fs::read_dir(tasks).ok()?.flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            // A thread may have ended since the directory was read.
            let Some(now) = thread_time(&task.path()) else {
                continue;
            };
            let before = self.threads.get(&thread).copied().unwrap_or_default();
            match engine.get(&thread) {
                None => self.times.host.add(now.since(before)),
                Some(EngineWork::Batches) => self.times.engine.add(now.since(before)),
                Some(EngineWork::Loading) => {}
            }
            seen.insert(thread, now);
        }
        self.threads = seen;
        let batches = engine.values().filter(|work| **work == EngineWork::Batches);
        self.engine_threads = batches.count();
        (!self.threads.is_empty()).then_some(self.times)
    }
}

/// The time of a thread: the first two fields of `schedstat` (Linux, `Documentation/scheduler/sched-stats`).
fn thread_time(task: &Path) -> Option<ThreadTime> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let mut fields = text.split_whitespace();
    let mut next = || Some(Duration::from_nanos(fields.next()?.parse().ok()?));
    Some(ThreadTime {
        ran: next()?,
        waited: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tasks: &Path, id: u32, nanos: u64, waited: u64) {
        let task = tasks.join(id.to_string());
        std::fs::create_dir_all(&task).unwrap();
        std::fs::write(task.join("schedstat"), format!("{nanos} {waited} 3\n")).unwrap();
    }

    #[test]
    fn a_thread_counts_for_what_it_is_at_each_reading() {
        let directory = tempfile::tempdir().unwrap();
        let tasks = directory.path();
        task(tasks, 1, 1000, 10);
        task(tasks, 2, 5000, 20);
        task(tasks, 3, 200, 0);
        let mut clock = HostClock::default();
        let nanos = |clock: &mut HostClock, engine: &[(u32, EngineWork)]| {
            let times = clock.read_from(tasks, &engine.iter().copied().collect())?;
            let all = |time: ThreadTime| (time.ran.as_nanos(), time.waited.as_nanos());
            Some((all(times.host), all(times.engine)))
        };
        // The second is seen before it says what it is.
        assert_eq!(nanos(&mut clock, &[]), Some(((6200, 30), (0, 0))));
        task(tasks, 1, 1500, 11);
        task(tasks, 2, 9000, 520);
        std::fs::remove_dir_all(tasks.join("3")).unwrap();
        assert_eq!(
            nanos(&mut clock, &[(2, EngineWork::Batches)]),
            Some(((6700, 31), (4000, 500))),
            "the time of ended threads is kept"
        );
        task(tasks, 4, 70_000, 7000);
        assert_eq!(
            nanos(
                &mut clock,
                &[(2, EngineWork::Batches), (4, EngineWork::Loading)]
            ),
            Some(((6700, 31), (4000, 500))),
            "a model is loaded"
        );
        let nowhere = Path::new("/nonexistent");
        assert_eq!(
            HostClock::default().read_from(nowhere, &HashMap::new()),
            None
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_time_of_this_process_grows_while_it_works() {
        let mut clock = HostClock::default();
        let Some(before) = clock.read() else {
            return; // A kernel without schedstat: the host's time is then unknown.
        };
        let until = std::time::Instant::now() + Duration::from_millis(50);
        let mut sum = 0_u64;
        while std::time::Instant::now() < until {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(clock.read().unwrap().since(before).host.ran > Duration::ZERO);
    }
}
