//! What the work beside the engine costs: sockets, HTTP, tokens, answers.
//!
//! Linux accounts the time of each thread; those of the engine are called `engine…`, and all others are
//! the host's. Where the system does not tell, nothing is said about the host.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// The beginning of the names of threads that compute batches.
const ENGINE: &str = "engine";

/// CPU time of the threads that are not the engine's.
#[derive(Debug, Default)]
pub struct HostClock {
    /// By thread: whether it is the engine's, and its time when it was last looked at.
    threads: HashMap<u32, (bool, u64)>,
    total: Duration,
}

impl HostClock {
    /// CPU time of the host's threads so far, those included that have ended since they were last seen.
    pub fn read(&mut self) -> Option<Duration> {
        self.read_from(Path::new("/proc/self/task"))
    }

    fn read_from(&mut self, tasks: &Path) -> Option<Duration> {
        let mut seen = HashMap::with_capacity(self.threads.len());
        for task in std::fs::read_dir(tasks).ok()?.flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            let path = task.path();
            // A thread may have ended since the directory was read.
            let Some(ran) = ran(&path) else { continue };
            let before = self.threads.get(&thread).copied();
            let is_engine = match before {
                Some((is_engine, _)) => is_engine,
                None => std::fs::read_to_string(path.join("comm"))
                    .ok()?
                    .starts_with(ENGINE),
            };
            if !is_engine {
                let new = ran.saturating_sub(before.map_or(0, |(_, ran)| ran));
                self.total += Duration::from_nanos(new);
            }
            seen.insert(thread, (is_engine, ran));
        }
        self.threads = seen;
        (!self.threads.is_empty()).then_some(self.total)
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
        let nanos = |clock: &mut HostClock| clock.read_from(tasks).map(|time| time.as_nanos());
        assert_eq!(nanos(&mut clock), Some(1200));
        task(tasks, 1, "intentd", 1500);
        task(tasks, 2, "engine-cpu-1", 9000);
        std::fs::remove_dir_all(tasks.join("3")).unwrap();
        assert_eq!(nanos(&mut clock), Some(1700), "what has ended has run");
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
        assert!(clock.read().unwrap() > before);
    }
}
