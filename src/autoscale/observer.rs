//! Observes a classifier and computes its hints.

use tokio::time::Instant;

use super::contention::is_busy;
use super::cpu_limit::cores;
use super::demand::{Demand, percent};
use super::estimator::{Estimate, Estimator, ObservedInterval, WINDOW};
use super::explain::Explanation;
use super::host::{CpuTimes, HostClock};
use super::learned::Conditions;
use super::load::{OfferedLoad, ReplicaShare};
use super::missed::{MissedObjective, Outcomes, Server};
use super::published::Published;
use super::recommend::Recommended;
use super::settings::{HintSettings, Trend};
use super::snapshot::{Calibration, Snapshot};
use super::tail::Variation;
use crate::serving::{Classifier, Counts, EngineTime, LatencyWindow, Observation};

/// Updates between two estimates of the capacity, which changes slowly.
const CAPACITY_UPDATES: u32 = 4;

/// Intervals of the latency window, and the seconds of each.
const WINDOW_INTERVALS: usize = 12;
const WINDOW_SECONDS: f64 = WINDOW / WINDOW_INTERVALS as f64;

/// What is known of a server, updated twice a second.
pub(super) struct Observer {
    load: OfferedLoad,
    missed: MissedObjective,
    estimator: Estimator,
    estimate: Option<Estimate>,
    generation: Option<u64>,
    latency: LatencyWindow,
    overhead: LatencyWindow,
    window_age: f64,
    host: HostClock,
    cores: f64,
    at: Instant,
    updates: u32,
    /// The counters at the last update.
    counts: Counts,
    /// Values at the last estimate of the capacity.
    capacity_counts: Counts,
    cpu_times: Option<CpuTimes>,
    engine_time: EngineTime,
    batches: u64,
    capacity_at: Instant,
}

impl Observer {
    /// Begins to observe.
    pub(super) fn new(classifier: &Classifier) -> Self {
        let counts = classifier.arrivals().counts();
        let mut host = HostClock::default();
        Self {
            load: OfferedLoad::new(counts),
            missed: MissedObjective::new(),
            estimator: Estimator::new(),
            estimate: None,
            generation: None,
            latency: LatencyWindow::new(WINDOW_INTERVALS),
            overhead: LatencyWindow::new(WINDOW_INTERVALS),
            window_age: 0.0,
            cpu_times: host.read(),
            engine_time: EngineTime::default(),
            batches: 0,
            host,
            cores: cores(),
            at: Instant::now(),
            updates: 0,
            counts,
            capacity_counts: counts,
            capacity_at: Instant::now(),
        }
    }

    /// The snapshot after an update, and the server errors per second.
    pub(super) fn update(
        &mut self,
        classifier: &Classifier,
        settings: &HintSettings,
    ) -> (Snapshot, f64) {
        let now = Instant::now();
        let elapsed = (now - std::mem::replace(&mut self.at, now)).as_secs_f64();
        let arrivals = classifier.arrivals();
        let counts = arrivals.counts();
        self.follow_load(counts, elapsed, settings);
        self.window_age += elapsed;
        if self.window_age >= WINDOW_SECONDS {
            self.window_age = 0.0;
            self.latency.rotate(&arrivals.latency);
            self.overhead.rotate(&arrivals.overhead);
        }
        let seen = classifier.observe();
        // Nothing is known about a model without batches. Until then, the old estimate is the better guess.
        if let Some(seen) = seen.filter(|seen| seen.samples > 0) {
            let is_new = self.generation.replace(seen.generation) != Some(seen.generation);
            if is_new {
                self.latency = LatencyWindow::new(WINDOW_INTERVALS);
                self.overhead = LatencyWindow::new(WINDOW_INTERVALS);
                self.missed.change_model();
            }
            if self.updates.is_multiple_of(CAPACITY_UPDATES) || is_new {
                self.estimate = Some(self.estimate(classifier, &seen, settings, counts, now));
            }
            self.updates = self.updates.wrapping_add(1);
        }
        let snapshot = self.snapshot(classifier, settings, seen.as_ref());
        (snapshot, self.load.rates().failed)
    }

    fn follow_load(&mut self, counts: Counts, elapsed: f64, settings: &HintSettings) {
        let before = std::mem::replace(&mut self.counts, counts);
        let replica = ReplicaShare {
            capacity: self.published().rate,
            utilization: settings.utilization,
        };
        let offered_tokens = self.load.update(counts, elapsed, replica);
        let Some(estimate) = self.estimate else {
            return;
        };
        if elapsed <= 0.0 {
            return;
        }
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let late = since(counts.late, before.late);
        let late_tokens = since(counts.late_tokens, before.late_tokens);
        let answered_tokens = since(counts.answered_tokens, before.answered_tokens);
        let records = since(counts.records, before.records);
        let record_tokens = since(counts.record_tokens, before.record_tokens);
        let outcomes = Outcomes {
            seconds: elapsed,
            in_time: (since(counts.answered, before.answered) - records - late).max(0.0),
            late,
            unanswered: since(counts.unanswered, before.unanswered),
            in_time_tokens: (answered_tokens - record_tokens - late_tokens).max(0.0),
            late_tokens,
            record_tokens,
            offered_tokens,
        };
        let size = self.load.request_tokens();
        let server = Server {
            size,
            model: estimate.capacity.rate * size,
            utilization: settings.utilization,
        };
        self.missed.look(outcomes, server);
    }

    fn published(&self) -> Published {
        let seen = self.missed.bounds();
        Published::new(self.estimate.as_ref(), seen, self.load.request_tokens())
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
        let elapsed = elapsed.max(1e-3);
        // The limit of a pod can change while it runs.
        self.cores = cores();
        let before = std::mem::replace(&mut self.capacity_counts, counts);
        let cpu_before = std::mem::replace(&mut self.cpu_times, self.host.read());
        // For a new model these restart at zero. The estimator ignores that interval.
        let batches_before = std::mem::replace(&mut self.batches, seen.batches);
        let engine = std::mem::replace(&mut self.engine_time, seen.engine);
        let engine = seen.engine.since(engine);
        let cpu = self.cpu_times.zip(cpu_before);
        let cpu = cpu.map(|(now, before)| now.since(before));
        let host = cpu.map(|cpu| cpu.outside_batches(seen.computes_alone.then_some(engine.spent)));
        if let (Some(cpu), Some(host)) = (cpu, host) {
            let (ran, waited) = (
                cpu.engine.ran.as_secs_f64(),
                cpu.engine.waited.as_secs_f64(),
            );
            let share = if is_busy(ran, elapsed, self.cores) {
                waited / (ran + waited)
            } else {
                // Batches are too few to tell; they wait for the host at least.
                host.as_secs_f64() / elapsed / self.cores
            };
            classifier.set_waiting_share(share);
        }
        let rates = self.load.rates();
        let interval = ObservedInterval {
            elapsed,
            answered: counts.answered.saturating_sub(before.answered) as f64,
            batches: seen.batches.saturating_sub(batches_before) as f64,
            engine,
            threads: cpu.map(|cpu| cpu.engine),
            threads_max: self.host.engine_threads() as f64,
            host: host.map(|host| host.as_secs_f64()),
            large: counts.large_read.saturating_sub(before.large_read) as f64,
            offered: rates.offered,
            is_missed: self.missed.is_missed(),
            overload_share: (rates.overloaded / rates.offered.max(1e-9)).min(1.0),
            latency: self.latency.summary(),
            overhead: self.overhead.summary(),
            variation: Variation {
                sizes: self.load.spread(),
                rate: self.load.burstiness(),
                highest: self.load.highest(),
            },
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
            offered_slope: self.load.slope(),
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
                explanation: Explanation::of_unknown_capacity(rates.offered),
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
        let Published {
            rate: capacity,
            bounds,
        } = self.published();
        // What fits in flight goes with the rate.
        let share = capacity / estimate.capacity.rate;
        let offered = rates.tokens / tokens;
        let demand = Demand {
            offered,
            trend: measured.offered_slope * ahead,
            capacity,
            utilization: settings.utilization,
            waiting: seen.waiting_tokens as f64 / tokens + seen.backlog as f64,
            waiting_expected: estimate.waiting * share,
            drain: settings.drain,
        };
        let replicas = demand.replicas();
        let learned = estimate.learned;
        let calibration = Calibration {
            tau0_seconds: learned.setup,
            alpha_seconds: learned.token,
            fit_error_ratio: seen.fit_error,
            samples: seen.samples,
            host_seconds: learned.host.request,
            host_batch_seconds: learned.host.batch,
            overhead_seconds: learned.overhead,
            contention_ratio: learned.contention,
            kappa: learned.tail,
            batch_max: estimate.batch_max,
        };
        let in_flight = estimate.in_flight * share;
        let explanation = Explanation {
            snapshot: &measured,
            demand: &demand,
            estimate,
            bounds,
            is_missed: self.missed.is_missed(),
            cores: self.cores,
        };
        let explanation = explanation.sentences();
        Snapshot {
            demand_replicas: replicas,
            demand_percent: percent(replicas),
            utilization: offered / capacity.max(1e-9),
            capacity_rps: capacity,
            // What is answered may be more than the model says.
            max_rps: estimate.capacity.rate_max.max(capacity),
            target_concurrency: in_flight,
            slo_feasible: u8::from(estimate.capacity.feasible),
            confidence: estimate.confidence,
            recommended: Recommended::new(capacity, in_flight, settings, measured.startup_seconds),
            calibration,
            explanation,
            ..measured
        }
    }
}
