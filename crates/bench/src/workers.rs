//! Worker threads that start at the same moment, or not at all.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Interval at which the calling thread reports progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// A worker's side of the common start: it reports that it is ready and waits for the start time.
#[derive(Debug)]
pub(super) struct StartGate {
    /// Sends true when ready, and false when dropped, for a caller that still waits.
    ready: Sender<bool>,
    start: Receiver<Instant>,
}

impl Drop for StartGate {
    fn drop(&mut self) {
        // Once every worker was ready, the receiver is no longer read.
        let _ = self.ready.send(false);
    }
}

impl StartGate {
    /// Waits until all workers are ready and returns the common start time.
    ///
    /// # Errors
    /// When another worker has failed.
    pub(super) fn wait(&self) -> Result<Instant, String> {
        let failed = |_| "another worker failed".to_owned();
        self.ready
            .send(true)
            .map_err(|_| "another worker failed".to_owned())?;
        self.start.recv().map_err(failed)
    }
}

/// Runs `work` on `count` threads, with each thread's index, and calls `progress` periodically until all end.
///
/// # Errors
/// The first error of a worker. A panic and a thread that cannot be started count as errors. Workers
/// that wait at the gate are then released with an error.
pub(super) fn run_workers<T: Send>(
    count: usize,
    work: &(dyn Fn(usize, &StartGate) -> Result<T, String> + Sync),
    progress: &dyn Fn(),
) -> Result<Vec<T>, String> {
    std::thread::scope(|scope| {
        let (ready, is_ready) = channel();
        let (mut starts, mut threads) = (Vec::new(), Vec::new());
        let mut failure = None;
        for index in 0..count {
            let (start, started) = channel();
            let gate = StartGate {
                ready: ready.clone(),
                start: started,
            };
            let thread = std::thread::Builder::new().name(format!("bench-{index}"));
            match thread.spawn_scoped(scope, move || work(index, &gate)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failure = Some(format!("cannot start worker {}: {error}", index + 1));
                    break;
                }
            }
            starts.push(start);
        }
        let all = failure.is_none() && (0..count).all(|_| is_ready.recv() == Ok(true));
        if all {
            let start = Instant::now();
            // A worker that does not receive it has failed and returns its own error.
            for one in &starts {
                let _ = one.send(start);
            }
        }
        drop(starts);
        while !threads.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(PROGRESS_INTERVAL);
            progress();
        }
        let results = threads.into_iter().map(|thread| {
            let panicked = |_| Err("a worker panicked".to_owned());
            thread.join().unwrap_or_else(panicked)
        });
        let (mut done, mut failures) = (Vec::new(), Vec::from_iter(failure));
        for result in results {
            match result {
                Ok(value) => done.push(value),
                Err(error) => failures.push(error),
            }
        }
        // The cause comes before its consequences in the other workers.
        failures.sort_by_key(|failure| failure == "another worker failed");
        match failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(done),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_start_at_the_same_time() {
        let starts = run_workers(5, &|_, gate| gate.wait(), &|| ()).unwrap();
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|start| *start == starts[0]));
    }

    #[test]
    fn a_worker_that_fails_or_panics_releases_the_others() {
        for panics in [false, true] {
            let work = |index: usize, gate: &StartGate| {
                if index == 2 {
                    assert!(!panics, "on purpose");
                    return Err("number 2".to_owned());
                }
                gate.wait().map(drop)
            };
            let error = run_workers(4, &work, &|| ()).unwrap_err();
            let expected = if panics {
                "a worker panicked"
            } else {
                "number 2"
            };
            assert_eq!(error, expected);
        }
    }
}
