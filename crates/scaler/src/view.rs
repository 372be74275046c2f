//! What is known about a workload, and for how long. Pure: time is an argument.
//!
//! A demand is reported only while it is known: when DNS and at least one replica answered, and for a bounded
//! time after. While a replica is missing from the sum, the sum does not fall, since the missing replica may
//! be too busy to answer. "Inactive" is reported only while every replica is idle by its last answer and no wake
//! signal is above its threshold. A workload that is stopped without that knowledge loses requests.
//!
//! When DNS, a replica or a wake source stops answering, the last answer still counts for a while, whether it was
//! "idle" or "busy". KEDA starts replicas when a call fails, so an outage would start one for each idle workload. The
//! price is that work which begins during an outage is noticed later.

use std::time::Duration;

use tokio::time::Instant;

use super::tally::{ReplicaCounts, Replicas, Tally};
use super::trigger::ActivityThresholds;

/// How long values count after they were last confirmed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Staleness {
    /// Time for which the last value of a replica or wake signal counts when it does not answer.
    pub keep: Duration,
    /// Time for which the last sum and the last activity count when nothing newer is known.
    pub stale_after: Duration,
}

/// The state of one workload.
#[derive(Debug)]
pub(super) struct WorkloadState {
    pub(super) replicas: Replicas,
    signals: Vec<WakeSignal>,
    staleness: Staleness,
    /// End of the first round.
    began: Option<Instant>,
    /// The sum to report.
    demand: Option<(f64, Instant)>,
    /// The sum that decides whether the workload is active.
    load: Option<(f64, Instant)>,
    /// When a replica last held requests, unless all are known to be idle.
    busy: Option<Instant>,
    /// Whether a sum has been complete once.
    was_complete: bool,
}

/// The last value of a wake signal, such as the lag of a consumer group.
#[derive(Debug, Default)]
struct WakeSignal {
    value: Option<(f64, Instant)>,
    failure: Option<String>,
    was_read: bool,
}

/// What is known about a workload now. The thresholds of a trigger decide what follows from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    /// Whether the replicas and every wake signal have been polled at least once.
    pub(super) is_settled: bool,
    /// Sum of the demand, in replicas, if it is known.
    pub(super) demand: Option<f64>,
    /// Known part of the demand, in replicas.
    pub(super) load: f64,
    /// Whether a replica holds requests, or held some and no longer answers.
    pub(super) is_busy: bool,
    /// Whether `load` and `is_busy` cover all replicas, each with a report that still counts.
    pub(super) is_complete: bool,
    /// The wake signals, in the order of their sources; `None` where one is not known any more.
    pub(super) signals: Vec<Option<f64>>,
    /// Why something is not known; empty if everything is.
    pub(super) unknown: String,
    pub(super) replicas: ReplicaCounts,
    /// Whether nothing runs and there is no wake source.
    pub(super) cannot_wake: bool,
}

impl View {
    /// Whether the workload should have a replica, if that is known.
    pub(super) fn is_active(&self, thresholds: &ActivityThresholds) -> Option<bool> {
        // One indication of work suffices; idleness needs them all.
        if self.is_busy || self.load > thresholds.demand || self.is_woken(thresholds) {
            return Some(true);
        }
        let is_known = self.is_complete && self.signals.iter().all(Option::is_some);
        is_known.then_some(false)
    }

    /// Whether a wake signal is known to be above its threshold.
    pub(super) fn is_woken(&self, thresholds: &ActivityThresholds) -> bool {
        let mut signals = self.signals.iter().zip(&thresholds.wake);
        signals.any(|(signal, limit)| signal.is_some_and(|value| value > *limit))
    }
}

impl WorkloadState {
    /// The state before the first round, with the given numbers of endpoints and wake signals.
    pub(super) fn new(endpoints: usize, signals: usize, staleness: Staleness) -> Self {
        Self {
            replicas: Replicas::new(endpoints),
            signals: (0..signals).map(|_| WakeSignal::default()).collect(),
            staleness,
            began: None,
            demand: None,
            load: None,
            busy: None,
            was_complete: false,
        }
    }

    /// Records the result of reading a wake signal. Returns whether it changed between failure and success.
    pub(super) fn read(&mut self, index: usize, value: Result<f64, String>, now: Instant) -> bool {
        let signal = &mut self.signals[index];
        signal.was_read = true;
        let failed_before = signal.failure.is_some();
        match value {
            Ok(value) => {
                signal.value = Some((value, now));
                signal.failure = None;
            }
            Err(why) => signal.failure = Some(why),
        }
        failed_before != signal.failure.is_some()
    }

    /// Ends a round of the replicas.
    pub(super) fn end_round(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// Updates the state to `now` and returns the view.
    pub(super) fn view(&mut self, now: Instant) -> View {
        let Staleness { keep, stale_after } = self.staleness;
        let tally = self.replicas.tally(keep, now);
        if let Some(began) = self.began {
            self.learn(&tally, began, now);
        }
        let demand = held(self.demand, stale_after, now);
        let reading = |signal: &WakeSignal| signal.reading(self.staleness, now);
        let signals: Vec<Option<f64>> = self.signals.iter().map(reading).collect();
        let is_complete = self.began.is_some() && self.is_covered(&tally, now);
        let has_failed = tally.unresolved.is_some()
            || tally.failure.is_some()
            || self.signals.iter().any(|signal| signal.failure.is_some());
        let is_known =
            demand.is_some() && is_complete && !has_failed && signals.iter().all(Option::is_some);
        View {
            is_settled: self.began.is_some() && self.signals.iter().all(|signal| signal.was_read),
            demand,
            load: held(self.load, stale_after, now).unwrap_or(0.0),
            is_busy: held(self.busy.map(|at| ((), at)), stale_after, now).is_some(),
            is_complete,
            signals,
            unknown: if is_known {
                String::new()
            } else {
                self.why_unknown(&tally)
            },
            replicas: tally.replicas,
            cannot_wake: self.began.is_some() && self.signals.is_empty() && tally.is_empty(),
        }
    }

    fn learn(&mut self, tally: &Tally, began: Instant, now: Instant) {
        let Staleness { keep, stale_after } = self.staleness;
        self.was_complete |= tally.is_complete();
        // After a start of the scaler, a replica that does not answer may be busy, so the first sum waits for
        // all replicas for a while. Later, an address that has not answered yet is a replica that starts,
        // and the sum is right without it.
        let may_sum = self.was_complete || now.duration_since(began) > keep;
        if may_sum && (tally.is_empty() || tally.replicas.fresh > 0) {
            // Without DNS, the replicas are those of the last resolution. Their sum counts as long as one
            // from then would.
            let known_at = match tally.unresolved {
                None => Some(now),
                Some(_) => tally.resolved,
            };
            if let Some(at) = known_at {
                let before = held(self.demand, stale_after, now);
                let sum = tally.sum(before);
                if tally.is_summed() || before.is_none_or(|before| sum >= before) {
                    self.demand = Some((sum, at));
                }
            }
        }
        let before = held(self.load, stale_after, now);
        let sum = tally.sum(before);
        if tally.is_complete() || before.is_none_or(|before| sum >= before) {
            self.load = Some((sum, now));
        }
        if tally.is_busy {
            self.busy = Some(now);
        } else if tally.is_complete() {
            self.busy = None;
        }
    }

    /// Whether every replica counts, by its present or its last report. Without DNS, the replicas are those of the last
    /// resolution, for a while.
    fn is_covered(&self, tally: &Tally, now: Instant) -> bool {
        let is_resolved = tally.unresolved.is_none()
            || held(
                tally.resolved.map(|at| ((), at)),
                self.staleness.stale_after,
                now,
            )
            .is_some();
        is_resolved && tally.replicas.silent == tally.absent
    }

    fn why_unknown(&self, tally: &Tally) -> String {
        let mut reasons = Vec::new();
        if self.began.is_none() {
            reasons.push("the replicas have not been asked yet".to_owned());
        }
        reasons.extend(tally.unresolved.clone());
        if let Some(failure) = &tally.failure {
            let ReplicaCounts { kept, silent, .. } = tally.replicas;
            let (missing, all) = (kept + silent, tally.reporting() + silent);
            reasons.push(format!(
                "{missing} of {all} replicas do not answer ({failure})"
            ));
        }
        reasons.extend(self.signals.iter().filter_map(|s| s.failure.clone()));
        reasons.join("; ")
    }
}

impl WakeSignal {
    /// The value, while it counts.
    fn reading(&self, staleness: Staleness, now: Instant) -> Option<f64> {
        let Staleness { keep, stale_after } = staleness;
        match self.failure {
            // The last completed read succeeded, so its value holds until the next one completes.
            None => self.value.map(|(value, _)| value),
            Some(_) => held(self.value, keep.max(stale_after), now),
        }
    }
}

/// A value, unless it is older than `time`.
fn held<T: Copy>(value: Option<(T, Instant)>, time: Duration, now: Instant) -> Option<T> {
    let (value, at) = value?;
    (now.duration_since(at) <= time).then_some(value)
}

#[cfg(test)]
mod tests;
