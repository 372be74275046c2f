//! CPU time of the host: everything outside the engine, such as sockets, HTTP, tokenizing and encoding.
//!
//! Linux accounts CPU time per thread. Threads named `engine…` are the engine's, all others the host's. On other
//! systems the host's time is unknown.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// The role of a thread, by the prefix of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThreadRole {
    /// Computes batches.
    Engine,
    /// Everything else.
    Host,
}

impl ThreadRole {
    fn of(name: &str) -> Self {
        if name.starts_with("engine") {
            Self::Engine
        } else {
            Self::Host
        }
    }
}

/// CPU time of this process so far, including that of ended threads until they were last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// Time of all other threads.
    pub host: Duration,
    /// Time of the engine's threads.
    pub engine: Duration,
}

impl CpuTimes {
    /// Time since `before` that was not spent on batches. `spent` is the engine's time on batches, if it computes
    /// on its thread alone. The rest of that thread's time went into taking texts from the queue and replying.
    pub fn outside_batches(self, before: Self, spent: Option<Duration>) -> Duration {
        let host = self.host.saturating_sub(before.host);
        let engine = self.engine.saturating_sub(before.engine);
        spent.map_or(host, |spent| host + engine.saturating_sub(spent))
    }
}

/// Reads the CPU times of this process.
#[derive(Debug, Default)]
pub struct HostClock {
    /// The role of each thread, and its time at the last reading.
    threads: HashMap<u32, (ThreadRole, u64)>,
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
                None => {
                    ThreadRole::of(&std::fs::read_to_string(path.join("comm")).unwrap_or_default())
                }
            };
            let new = ran.saturating_sub(before.map_or(0, |(_, ran)| ran));
            match work {
                ThreadRole::Engine => self.times.engine += Duration::from_nanos(new),
                ThreadRole::Host => self.times.host += Duration::from_nanos(new),
            }
            seen.insert(thread, (work, ran));
        }
        self.threads = seen;
        (!self.threads.is_empty()).then_some(self.times)
    }
}

/// Nanoseconds that a thread has run: the first field of `schedstat` (Linux,
/// `Documentation/scheduler/sched-stats`).
fn ran(task: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Cores that this process may use, by affinity and cgroup.
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
    fn threads_count_for_host_or_engine_by_name() {
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
            "the time of ended threads is kept"
        );
        let nowhere = Path::new("/nonexistent");
        assert_eq!(HostClock::default().read_from(nowhere), None);
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
        assert!(clock.read().unwrap().host > before.host);
    }
}
