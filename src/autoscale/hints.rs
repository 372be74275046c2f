//! The hints of a server, and the loop that updates them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::demand::{Demand, percent};
use super::estimator::{Estimate, Estimator, ObservedInterval};
use super::gauges::HintGauges;
use super::host::{CpuTimes, HostClock, cores};
use super::learned::Conditions;
use super::load::OfferedLoad;
use super::orca::LoadReport;
use super::recommend::Recommended;
use super::settings::{HintSettings, Trend};
use super::snapshot::{Calibration, SCHEMA_VERSION, Snapshot};
use crate::metrics::Metrics;
use crate::serving::{Classifier, Counts, EngineTime, LatencyWindow, Observation};

/// Time between two updates.
const TICK: Duration = Duration::from_millis(500);

/// Updates between two estimates of the capacity, which changes slowly.
const CAPACITY_TICKS: u32 = 4;

/// Seconds per interval of the latency window, and its number of intervals: one minute in total.
const WINDOW_SECONDS: f64 = 5.0;
const WINDOW_INTERVALS: usize = 12;

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
        let mut state = HintLoop::new(&classifier);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut models = classifier.models();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Publishes the capacity of a new model at once, not half a second later.
                _ = models.changed() => {}
            }
            let (snapshot, errors) = state.update(&classifier, &self.settings);
            self.gauges.publish(&snapshot);
            let report = LoadReport::new(&snapshot, errors);
            let published = Published { snapshot, report };
            self.published.store(Arc::new(published));
        }
    }
}

/// The state of the update loop.
struct HintLoop {
    load: OfferedLoad,
    estimator: Estimator,
    estimate: Option<Estimate>,
    generation: Option<u64>,
    latency: LatencyWindow,
    overhead: LatencyWindow,
    window_age: f64,
    host: HostClock,
    cores: f64,
    at: Instant,
    tick: u32,
    /// Values at the last estimate of the capacity.
    counts: Counts,
    host_time: Option<CpuTimes>,
    engine_time: EngineTime,
    batches: u64,
    capacity_at: Instant,
}

impl HintLoop {
    fn new(classifier: &Classifier) -> Self {
        let counts = classifier.arrivals().counts();
        let mut host = HostClock::default();
        Self {
            load: OfferedLoad::new(counts),
            estimator: Estimator::new(),
            estimate: None,
            generation: None,
            latency: LatencyWindow::new(WINDOW_INTERVALS),
            overhead: LatencyWindow::new(WINDOW_INTERVALS),
            window_age: 0.0,
            host_time: host.read(),
            engine_time: EngineTime::default(),
            batches: 0,
            host,
            cores: cores() as f64,
            at: Instant::now(),
            tick: 0,
            counts,
            capacity_at: Instant::now(),
        }
    }

    /// The snapshot after an update, and the server errors per second.
    fn update(&mut self, classifier: &Classifier, settings: &HintSettings) -> (Snapshot, f64) {
        let now = Instant::now();
        let elapsed = (now - std::mem::replace(&mut self.at, now)).as_secs_f64();
        let arrivals = classifier.arrivals();
        let counts = arrivals.counts();
        let capacity = self.estimate.map_or(0.0, |estimate| estimate.capacity.rate);
        self.load.update(counts, elapsed, capacity);
        self.window_age += elapsed;
        if self.window_age >= WINDOW_SECONDS {
            self.window_age = 0.0;
            self.latency.rotate(&arrivals.latency);
            self.overhead.rotate(&arrivals.overhead);
        }
        let seen = classifier.observe();
        // Nothing is known about a model without batches. Until then, the old estimate is the better guess.
        if let Some(seen) = seen.filter(|seen| seen.batches > 0) {
            let is_new = self.generation.replace(seen.generation) != Some(seen.generation);
            if is_new {
                self.latency = LatencyWindow::new(WINDOW_INTERVALS);
                self.overhead = LatencyWindow::new(WINDOW_INTERVALS);
            }
            if self.tick.is_multiple_of(CAPACITY_TICKS) || is_new {
                self.estimate = Some(self.estimate(classifier, &seen, settings, counts, now));
            }
            self.tick = self.tick.wrapping_add(1);
        }
        let snapshot = self.snapshot(classifier, settings, seen.as_ref());
        (snapshot, self.load.rates().failed)
    }

    fn estimate(
        &mut self,
        classifier: &Classifier,
        seen: &Observation,
        settings: &HintSettings,
        counts: Counts,
        now: Instant,
    ) -> Estimate {
        let elapsed = (now - std::mem::replace(&mut self.capacity_at, now)).as_secs_f64();
        let before = std::mem::replace(&mut self.counts, counts);
        let host_before = std::mem::replace(&mut self.host_time, self.host.read());
        // For a new model these restart at zero. The estimator ignores that interval.
        let batches_before = std::mem::replace(&mut self.batches, seen.batches);
        let engine = std::mem::replace(&mut self.engine_time, seen.engine);
        let engine = seen.engine.since(engine);
        let host = self.host_time.zip(host_before).map(|(now, before)| {
            now.since(before)
                .outside_batches(seen.computes_alone.then_some(engine.spent))
        });
        let elapsed = elapsed.max(1e-3);
        if let Some(host) = host {
            let share = host.as_secs_f64() / elapsed / self.cores;
            classifier.set_host_share(share);
        }
        let rates = self.load.rates();
        let interval = ObservedInterval {
            elapsed,
            answered: counts.answered.saturating_sub(before.answered) as f64,
            batches: seen.batches.saturating_sub(batches_before) as f64,
            engine,
            host: host.map(|host| host.as_secs_f64()),
            large: counts.large_read.saturating_sub(before.large_read) as f64,
            offered: rates.offered,
            overload_share: (rates.overloaded / rates.offered.max(1e-9)).min(1.0),
            latency: self.latency.summary(),
            overhead: self.overhead.summary(),
            spread: self.load.spread(),
        };
        let conditions = Conditions {
            request_tokens: self.load.request_tokens(),
            request_texts: self.load.request_texts(),
            request_bytes: rates.large / rates.offered.max(1e-9),
            batch_texts: seen.batch_texts as f64,
            cores: self.cores,
            shares_cores: seen.shares_cores,
            objective: settings.objective,
        };
        self.estimator.update(seen, &conditions, &interval)
    }

    fn snapshot(
        &self,
        classifier: &Classifier,
        settings: &HintSettings,
        seen: Option<&Observation>,
    ) -> Snapshot {
        let unknown = Snapshot::unknown(settings);
        let rates = self.load.rates();
        let metrics = classifier.metrics();
        let count = |gauge: &prometheus::IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        let startup = metrics.startup_seconds.with_label_values(&["total"]).get();
        let measured = Snapshot {
            ready: u8::from(classifier.is_ready()),
            offered_rps: rates.offered,
            accepted_rps: rates.accepted,
            refused_rps: rates.refused,
            offered_slope: rates.slope,
            in_flight: count(&metrics.in_flight),
            queue_depth: count(&metrics.queue_depth),
            backlog: classifier.arrivals().backlog(),
            oldest_wait_seconds: seen.map_or(0.0, |seen| seen.oldest_wait.as_secs_f64()),
            p99_seconds: self.latency.summary().p99,
            request_tokens: self.load.request_tokens(),
            startup_seconds: startup,
            ..unknown
        };
        let (Some(estimate), Some(seen)) = (self.estimate, seen) else {
            // The capacity is unknown, but any load needs one server.
            let demand = f64::from(u8::from(rates.offered > 0.0));
            return Snapshot {
                demand_replicas: demand,
                demand_percent: percent(demand),
                ..measured
            };
        };
        self.with_capacity(measured, &estimate, seen, settings)
    }

    fn with_capacity(
        &self,
        measured: Snapshot,
        estimate: &Estimate,
        seen: &Observation,
        settings: &HintSettings,
    ) -> Snapshot {
        let rates = self.load.rates();
        let tokens = self.load.request_tokens();
        let ahead = match settings.trend {
            Trend::Off => 0.0,
            Trend::Startup => measured.startup_seconds,
            Trend::Seconds(seconds) => seconds,
        };
        let capacity = estimate.capacity;
        let offered = rates.tokens / tokens;
        let demand = Demand {
            offered,
            trend: rates.slope * ahead,
            capacity: capacity.rate,
            utilization: settings.utilization,
            waiting: seen.waiting_tokens as f64 / tokens + seen.backlog as f64,
            waiting_expected: estimate.waiting,
            drain: settings.drain,
        };
        let replicas = demand.replicas();
        let learned = estimate.learned;
        let calibration = Calibration {
            tau0_seconds: learned.setup,
            alpha_seconds: learned.token,
            fit_error_ratio: seen.fit_error,
            samples: seen.batches,
            host_seconds: learned.host.request,
            host_batch_seconds: learned.host.batch,
            overhead_seconds: learned.overhead,
            contention_ratio: learned.contention,
            kappa: learned.tail,
            batch_max: estimate.batch_max,
        };
        Snapshot {
            demand_replicas: replicas,
            demand_percent: percent(replicas),
            utilization: offered / capacity.rate.max(1e-9),
            capacity_rps: capacity.rate,
            max_rps: capacity.rate_max,
            target_concurrency: estimate.in_flight,
            slo_feasible: u8::from(capacity.feasible),
            confidence: estimate.confidence,
            recommended: Recommended::new(
                capacity.rate,
                estimate.in_flight,
                settings,
                measured.startup_seconds,
            ),
            calibration,
            ..measured
        }
    }
}

impl Snapshot {
    /// The snapshot of a server about which nothing is known.
    fn unknown(settings: &HintSettings) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            model: settings.model.clone(),
            pod: settings.pod.clone(),
            ready: 0,
            demand_replicas: 0.0,
            demand_percent: 0,
            utilization: 0.0,
            offered_rps: 0.0,
            accepted_rps: 0.0,
            refused_rps: 0.0,
            offered_slope: 0.0,
            capacity_rps: 0.0,
            max_rps: 0.0,
            target_utilization: settings.utilization,
            target_concurrency: 0.0,
            in_flight: 0,
            queue_depth: 0,
            backlog: 0,
            oldest_wait_seconds: 0.0,
            slo_seconds: settings.objective.unwrap_or(0.0),
            slo_feasible: 1,
            p99_seconds: 0.0,
            request_tokens: 0.0,
            confidence: 0.0,
            startup_seconds: 0.0,
            calibration: Calibration::default(),
            recommended: Recommended::new(0.0, 0.0, settings, 0.0),
        }
    }
}
