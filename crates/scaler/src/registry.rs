//! The workloads that are watched: that of the flags permanently, those of triggers while KEDA asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::metrics::WorkloadTotals;
use super::trigger::WatchSpec;
use super::workload::{Polling, Workload};

/// Bounds on the registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct RegistryBounds {
    /// Most workloads at once.
    pub(super) workloads_max: usize,
    /// Time without a call or stream after which a workload is evicted.
    pub(super) forget_after: Duration,
}

/// All workloads, by what is watched.
#[derive(Debug)]
pub(super) struct WorkloadRegistry {
    polling: Arc<Polling>,
    bounds: RegistryBounds,
    entries: Mutex<HashMap<String, RegisteredWorkload>>,
}

#[derive(Debug)]
struct RegisteredWorkload {
    workload: Arc<Workload>,
    /// Time of the last call.
    asked: Instant,
    /// Whether it is never evicted.
    is_pinned: bool,
    /// The drop ends the tasks.
    _tasks: JoinSet<()>,
}

/// The registry has no room for another workload.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} workloads are watched already (--max-workloads); one that nobody asks about is dropped after \
     --forget-after"
)]
pub(super) struct RegistryFull(usize);

impl WorkloadRegistry {
    pub(super) fn new(polling: Polling, bounds: RegistryBounds) -> Self {
        Self {
            polling: Arc::new(polling),
            bounds,
            entries: Mutex::default(),
        }
    }

    /// Watches a workload permanently.
    ///
    /// # Errors
    /// See [`RegistryFull`].
    pub(super) fn pin(&self, spec: &WatchSpec) -> Result<(), RegistryFull> {
        self.entry(spec, |entry| entry.is_pinned = true).map(drop)
    }

    /// Returns a workload, which is watched from now on.
    ///
    /// # Errors
    /// See [`RegistryFull`].
    pub(super) fn get(&self, spec: &WatchSpec) -> Result<Arc<Workload>, RegistryFull> {
        self.entry(spec, |_| {})
    }

    fn entry(
        &self,
        spec: &WatchSpec,
        change: impl FnOnce(&mut RegisteredWorkload),
    ) -> Result<Arc<Workload>, RegistryFull> {
        let key = spec.key();
        let now = Instant::now();
        let mut entries = self.entries();
        if !entries.contains_key(&key) {
            if entries.len() >= self.bounds.workloads_max {
                self.evict(&mut entries, now);
            }
            if entries.len() >= self.bounds.workloads_max {
                return Err(RegistryFull(entries.len()));
            }
        }
        let entry = entries.entry(key).or_insert_with(|| {
            let (workload, tasks) = Workload::start(spec, &self.polling);
            RegisteredWorkload {
                workload,
                asked: now,
                is_pinned: false,
                _tasks: tasks,
            }
        });
        entry.asked = now;
        change(entry);
        Ok(Arc::clone(&entry.workload))
    }

    /// Evicts unused workloads at a tenth of the bound; never returns.
    pub(super) async fn evict_periodically(&self) {
        let mut ticks = tokio::time::interval(self.bounds.forget_after / 10);
        loop {
            let now = ticks.tick().await;
            self.evict(&mut self.entries(), now);
        }
    }

    /// Evicts the workloads without a stream, and without a call for `forget_after`.
    fn evict(&self, entries: &mut HashMap<String, RegisteredWorkload>, now: Instant) {
        entries.retain(|_, entry| {
            if entry.workload.has_subscribers() {
                entry.asked = now;
            }
            entry.is_pinned || now.duration_since(entry.asked) <= self.bounds.forget_after
        });
    }

    /// The sums over all workloads, for metrics.
    pub(super) fn totals(&self) -> WorkloadTotals {
        let entries = self.entries();
        let mut totals = WorkloadTotals {
            workloads: entries.len(),
            ..WorkloadTotals::default()
        };
        for entry in entries.values() {
            let view = entry.workload.view();
            totals.demand += view.demand.unwrap_or(0.0);
            totals.replicas.fresh += view.replicas.fresh;
            totals.replicas.kept += view.replicas.kept;
            totals.replicas.silent += view.replicas.silent;
        }
        totals
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, RegisteredWorkload>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::ScalerMetrics;
    use super::super::view::Staleness;
    use super::*;

    fn spec(port: u16) -> WatchSpec {
        WatchSpec {
            endpoints: vec![format!("127.0.0.1:{port}").parse().unwrap()],
            wake_sources: Vec::new(),
        }
    }

    fn registry(workloads_max: usize) -> WorkloadRegistry {
        let second = Duration::from_secs(1);
        let polling = Polling {
            interval: 10_000 * second,
            wake_interval: second,
            timeout: second,
            staleness: Staleness {
                keep: second,
                stale_after: second,
            },
            replicas_max: 10,
            metrics: ScalerMetrics::new(),
        };
        let bounds = RegistryBounds {
            workloads_max,
            forget_after: 600 * second,
        };
        WorkloadRegistry::new(polling, bounds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_without_calls_is_evicted() {
        let registry = registry(2);
        registry.pin(&spec(1)).unwrap();
        let other = registry.get(&spec(2)).unwrap();
        assert!(Arc::ptr_eq(&other, &registry.get(&spec(2)).unwrap()));
        assert_eq!(registry.get(&spec(3)).unwrap_err(), RegistryFull(2));
        tokio::time::advance(Duration::from_secs(601)).await;
        registry.get(&spec(3)).unwrap();
        assert_eq!(registry.totals().workloads, 2);
        registry.pin(&spec(1)).unwrap();
        assert_eq!(registry.get(&spec(2)).unwrap_err(), RegistryFull(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_with_a_stream_is_not_evicted() {
        let registry = registry(1);
        let stream = registry.get(&spec(1)).unwrap().subscribe();
        tokio::time::advance(Duration::from_secs(6000)).await;
        assert_eq!(registry.get(&spec(2)).unwrap_err(), RegistryFull(1));
        drop(stream);
        tokio::time::advance(Duration::from_secs(601)).await;
        registry.get(&spec(2)).unwrap();
    }
}
