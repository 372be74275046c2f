//! The workloads that are watched: those of the flags for good, those of triggers while somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::trigger::Watch;
use super::workload::{Common, Workload};

/// Bounds on the workloads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How many there may be at once.
    pub(super) workloads_max: usize,
    /// Time after which one is dropped that nobody asks about.
    pub(super) forget_after: Duration,
}

/// All workloads.
#[derive(Debug)]
pub(super) struct Watches {
    common: Arc<Common>,
    bounds: Bounds,
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    workload: Arc<Workload>,
    asked: Instant,
    is_kept: bool,
    /// Ended by their drop.
    _tasks: JoinSet<()>,
}

/// There are as many workloads as there may be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} workloads are watched already (--max-workloads); one that nobody asks about is dropped after \
     --forget-after"
)]
pub(super) struct Full(usize);

/// What all workloads add up to, for metrics.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) workloads: usize,
    pub(super) demand: f64,
    pub(super) fresh: usize,
    pub(super) kept: usize,
    pub(super) silent: usize,
}

impl Watches {
    pub(super) fn new(common: Common, bounds: Bounds) -> Self {
        Self {
            common: Arc::new(common),
            bounds,
            entries: Mutex::default(),
        }
    }

    /// Watches a workload whether somebody asks or not.
    ///
    /// # Errors
    /// See [`Full`].
    pub(super) fn keep(&self, watched: &Watch) -> Result<(), Full> {
        self.entry(watched, |entry| entry.is_kept = true).map(drop)
    }

    /// The workload, watched from now on.
    ///
    /// # Errors
    /// See [`Full`].
    pub(super) fn get(&self, watched: &Watch) -> Result<Arc<Workload>, Full> {
        self.entry(watched, |_| {})
    }

    fn entry(
        &self,
        watched: &Watch,
        change: impl FnOnce(&mut Entry),
    ) -> Result<Arc<Workload>, Full> {
        let key = watched.key();
        let now = Instant::now();
        let mut entries = self.entries();
        if !entries.contains_key(&key) {
            if entries.len() >= self.bounds.workloads_max {
                self.forget(&mut entries, now);
            }
            if entries.len() >= self.bounds.workloads_max {
                return Err(Full(entries.len()));
            }
        }
        let entry = entries.entry(key).or_insert_with(|| {
            let (workload, tasks) = Workload::start(watched, &self.common);
            Entry {
                workload,
                asked: now,
                is_kept: false,
                _tasks: tasks,
            }
        });
        entry.asked = now;
        change(entry);
        Ok(Arc::clone(&entry.workload))
    }

    /// Drops those that nobody has asked about for long; for ever, at a fraction of that time.
    pub(super) async fn forget_on(&self) {
        let mut ticks = tokio::time::interval(self.bounds.forget_after / 10);
        loop {
            let now = ticks.tick().await;
            self.forget(&mut self.entries(), now);
        }
    }

    fn forget(&self, entries: &mut HashMap<String, Entry>, now: Instant) {
        entries.retain(|_, entry| {
            if entry.workload.is_watched() {
                entry.asked = now;
            }
            entry.is_kept || now.duration_since(entry.asked) <= self.bounds.forget_after
        });
    }

    pub(super) fn totals(&self) -> Totals {
        let entries = self.entries();
        let mut totals = Totals {
            workloads: entries.len(),
            ..Totals::default()
        };
        for entry in entries.values() {
            let view = entry.workload.view();
            totals.demand += view.demand.unwrap_or(0.0);
            totals.fresh += view.fresh;
            totals.kept += view.kept;
            totals.silent += view.silent;
        }
        totals
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaler::metrics::Metrics;
    use crate::scaler::view::Patience;

    fn watched(port: u16) -> Watch {
        Watch {
            places: vec![format!("127.0.0.1:{port}").parse().unwrap()],
            wakes: Vec::new(),
        }
    }

    fn watches(workloads_max: usize) -> Watches {
        let second = Duration::from_secs(1);
        let patience = Patience {
            keep: second,
            stale_after: second,
        };
        let common = Common::new(
            (10_000 * second, second, second),
            patience,
            10,
            Metrics::new(),
        );
        let bounds = Bounds {
            workloads_max,
            forget_after: 600 * second,
        };
        Watches::new(common, bounds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_about_is_forgotten() {
        let watches = watches(2);
        watches.keep(&watched(1)).unwrap();
        let other = watches.get(&watched(2)).unwrap();
        assert!(Arc::ptr_eq(&other, &watches.get(&watched(2)).unwrap()));
        assert_eq!(watches.get(&watched(3)).unwrap_err(), Full(2));
        tokio::time::advance(Duration::from_secs(601)).await;
        watches.get(&watched(3)).unwrap();
        assert_eq!(watches.totals().workloads, 2);
        watches.keep(&watched(1)).unwrap();
        assert_eq!(watches.get(&watched(2)).unwrap_err(), Full(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stream_watches_is_not_forgotten() {
        let watches = watches(1);
        let stream = watches.get(&watched(1)).unwrap().views();
        tokio::time::advance(Duration::from_secs(6000)).await;
        assert_eq!(watches.get(&watched(2)).unwrap_err(), Full(1));
        drop(stream);
        tokio::time::advance(Duration::from_secs(601)).await;
        watches.get(&watched(2)).unwrap();
    }
}
