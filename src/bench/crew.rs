//! Threads that begin at the same moment, or not at all.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How often the caller looks how far the others are.
const LOOK: Duration = Duration::from_millis(50);

/// A thread's side: it says that it is ready, and hears when to begin.
#[derive(Debug)]
pub(super) struct Crew {
    /// True when ready; false in the end, which only matters before.
    ready: Sender<bool>,
    start: Receiver<Instant>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Nobody listens any more when all were ready.
        let _ = self.ready.send(false);
    }
}

impl Crew {
    /// Returns the common start when all are ready.
    ///
    /// # Errors
    /// When another one has failed.
    pub(super) fn ready(&self) -> Result<Instant, String> {
        let failed = |_| "another worker failed".to_owned();
        self.ready
            .send(true)
            .map_err(|_| "another worker failed".to_owned())?;
        self.start.recv().map_err(failed)
    }
}

/// Calls `work` on so many threads, with the number of each, and `look` now and then meanwhile.
///
/// # Errors
/// The first that a thread returns; a panic or a thread that is not to be had is one, too. Those
/// that wait for the start are then let go.
pub(super) fn work_together<T: Send>(
    count: usize,
    work: &(dyn Fn(usize, &Crew) -> Result<T, String> + Sync),
    look: &dyn Fn(),
) -> Result<Vec<T>, String> {
    std::thread::scope(|scope| {
        let (ready, is_ready) = channel();
        let (mut starts, mut threads) = (Vec::new(), Vec::new());
        let mut failure = None;
        for index in 0..count {
            let (start, started) = channel();
            let crew = Crew {
                ready: ready.clone(),
                start: started,
            };
            let thread = std::thread::Builder::new().name(format!("bench-{index}"));
            match thread.spawn_scoped(scope, move || work(index, &crew)) {
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
            // Who does not hear it has failed, and says so in the end.
            for one in &starts {
                let _ = one.send(start);
            }
        }
        drop(starts);
        while !threads.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(LOOK);
            look();
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
        // What made the others give up comes first.
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
    fn all_begin_together() {
        let starts = work_together(5, &|_, crew| crew.ready(), &|| ()).unwrap();
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|start| *start == starts[0]));
    }

    #[test]
    fn one_that_fails_or_panics_lets_the_others_go() {
        for panics in [false, true] {
            let work = |index: usize, crew: &Crew| {
                if index == 2 {
                    assert!(!panics, "on purpose");
                    return Err("number 2".to_owned());
                }
                crew.ready().map(drop)
            };
            let error = work_together(4, &work, &|| ()).unwrap_err();
            let expected = if panics {
                "a worker panicked"
            } else {
                "number 2"
            };
            assert_eq!(error, expected);
        }
    }
}
