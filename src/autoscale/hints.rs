//! The hints of a server, published twice a second.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::time::{MissedTickBehavior, interval};

use super::gauges::HintGauges;
use super::observer::Observer;
use super::orca::LoadReport;
use super::settings::HintSettings;
use super::snapshot::Snapshot;
use crate::metrics::Metrics;
use crate::serving::Classifier;

/// Time between two updates.
const TICK: Duration = Duration::from_millis(500);

/// The published hints.
#[derive(Debug)]
struct Published {
    snapshot: Snapshot,
    report: LoadReport,
}

/// The hints of a server.
#[derive(Debug)]
pub struct Hints {
    settings: HintSettings,
    gauges: HintGauges,
    published: ArcSwap<Published>,
}

impl Hints {
    /// Hints of a server before its first observation. Registers their gauges in `metrics`.
    pub fn new(settings: HintSettings, metrics: &Metrics) -> Arc<Self> {
        let snapshot = Snapshot::unknown(&settings);
        let report = LoadReport::new(&snapshot, 0.0);
        Arc::new(Self {
            settings,
            gauges: HintGauges::new(metrics.registry()),
            published: ArcSwap::from_pointee(Published { snapshot, report }),
        })
    }

    /// Passes the last published snapshot to `look`.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.published.load().snapshot)
    }

    /// Passes the last published load report to `look`.
    pub fn report<T>(&self, look: impl FnOnce(&LoadReport) -> T) -> T {
        look(&self.published.load().report)
    }

    /// Updates the hints twice a second, for ever. Restarts after a panic.
    pub async fn follow(self: Arc<Self>, classifier: Arc<Classifier>) {
        loop {
            let updates = Arc::clone(&self).update(Arc::clone(&classifier));
            if AssertUnwindSafe(updates).catch_unwind().await.is_err() {
                tracing::error!("updating the hints panicked; starting again");
                tokio::time::sleep(TICK).await;
            }
        }
    }

    async fn update(self: Arc<Self>, classifier: Arc<Classifier>) {
        let mut observer = Observer::new(&classifier);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut models = classifier.models();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Publishes the capacity of a new model at once, not half a second later.
                _ = models.changed() => {}
            }
            let (hints, of) = (Arc::clone(&self), Arc::clone(&classifier));
            // A simulation takes milliseconds, for which no request should wait.
            let work = move || {
                let (snapshot, errors) = observer.update(&of, &hints.settings);
                (observer, snapshot, errors)
            };
            let (snapshot, errors);
            (observer, snapshot, errors) = match tokio::task::spawn_blocking(work).await {
                Ok(updated) => updated,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime shuts down.
                    Err(_) => return,
                },
            };
            self.gauges.publish(&snapshot);
            let report = LoadReport::new(&snapshot, errors);
            let published = Published { snapshot, report };
            self.published.store(Arc::new(published));
        }
    }
}
