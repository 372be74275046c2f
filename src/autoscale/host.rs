//! What the work beside the engine costs: sockets, HTTP, tokens, answers.
//!
//! Linux accounts the time of each thread; those of the engine are called `engine…`, and all others are
//! the host's. Where the system does not tell, nothing is said about the host.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// What a thread works for, by the beginning of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Batches.
    Engine,
    /// Everything else.
    Host,
}

impl Work {
    fn of(name: &str) -> Self {
        if name.starts_with("engine") {
            Self::Engine
        } else {
            Self::Host
        }
    }
}

/// CPU time of this process so far, threads included that have ended since they were last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// Of the threads that are not the engine's.
    pub host: Duration,
    /// Of the engine's.
    pub engine: Duration,
}

impl CpuTimes {
    /// What has been spent since `before` on everything but batches. On batches the engine has spent `spent`,
    /// where it computes on its thread alone: the rest of that thread's time is for taking requests out of
    /// the queue and for replies.
    pub fn beside_batches(self, before: Self, spent: Option<Duration>) -> Duration {
        let host = self.host.saturating_sub(before.host);
        let engine = self.engine.saturating_sub(before.engine);
        spent.map_or(host, |spent| host + engine.saturating_sub(spent))
    }
}

/// Reads CPU times.
#[derive(Debug, Default)]
pub struct HostClock {
    /// By thread: what it works for, and its time when it was last looked at.
    threads: HashMap<u32, (Work, u64)>,
    times: CpuTimes,
}

impl HostClock {
    /// The times so far.
    pub fn read(&mut self) -> Option<CpuTimes> {
        self.read_from(Path::new("/proc/self/task"))
    }

    fn read_from(&mut self, tasks: &Path) -> Option<CpuTimes> {
        let mut seen = HashMap::with_capacity(self.threads.len());
        for task in std::fs::read_dir(tasks).ok()?.flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            let path = task.path();
            // A thread may have ended since the directory was read.
            let Some(ran) = ran(&path) else { continue };
            let before = self.threads.get(&thread).copied();
            let work = match before {
                Some((work, _)) => work,
                None => Work::of(&std::fs::read_to_string(path.join("comm")).unwrap_or_default()),
            };
            let new = ran.saturating_sub(before.map_or(0, |(_, ran)| ran));
            match work {
                Work::Engine => self.times.engine += Duration::from_nanos(new),
                Work::Host => self.times.host += Duration::from_nanos(new),
            }
            seen.insert(thread, (work, ran));
        }
        self.threads = seen;
        (!self.threads.is_empty()).then_some(self.times)
    }
}

/// Nanoseconds that a thread has run (Linux, `Documentation/scheduler/sched-stats`: the first of three).
fn ran(task: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Cores that this process may use, by its affinity and its cgroup.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tasks: &Path, id: u32, name: &str, nanos: u64) {
        let task = tasks.join(id.to_string());
        std::fs::create_dir_all(&task).unwrap();
        std::fs::write(task.join("comm"), format!("{name}\n")).unwrap();
        std::fs::write(task.join("schedstat"), format!("{nanos} 77 3\n")).unwrap();
    }

    #[test]
    fn all_threads_count_but_those_of_the_engine() {
        let directory = tempfile::tempdir().unwrap();
        let tasks = directory.path();
        task(tasks, 1, "intentd", 1000);
        task(tasks, 2, "engine-cpu-1", 5000);
        task(tasks, 3, "tokio-rt-worker", 200);
        let mut clock = HostClock::default();
        let nanos = |clock: &mut HostClock| {
            let times = clock.read_from(tasks);
            times.map(|times| (times.host.as_nanos(), times.engine.as_nanos()))
        };
        assert_eq!(nanos(&mut clock), Some((1200, 5000)));
        task(tasks, 1, "intentd", 1500);
        task(tasks, 2, "engine-cpu-1", 9000);
        std::fs::remove_dir_all(tasks.join("3")).unwrap();
        assert_eq!(
            nanos(&mut clock),
            Some((1700, 9000)),
            "what has ended has run"
        );
        let nowhere = Path::new("/nonexistent");
        assert_eq!(HostClock::default().read_from(nowhere), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_time_of_this_process_grows_while_it_works() {
        let mut clock = HostClock::default();
        let Some(before) = clock.read() else {
            return; // A kernel without schedstat; the server then says that it does not know.
        };
        let until = std::time::Instant::now() + Duration::from_millis(50);
        let mut sum = 0_u64;
        while std::time::Instant::now() < until {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(clock.read().unwrap().host > before.host);
    }
}
