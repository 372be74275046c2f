//! What is known about a workload, and for how long. Pure: time is an argument.
//!
//! A number is given only while it is known: the sum when DNS and at least one replica answered, and for
//! a bounded time after. While a replica is missing from it, the sum does not fall: what is missing is as
//! likely as not the replica that is too busy to answer. "Inactive" is said only while every replica is
//! known to be idle and every sign of work is known to be absent: a workload that is stopped for want of
//! knowledge loses requests, one that runs for want of knowledge costs a replica.

use std::time::Duration;

use tokio::time::Instant;

use super::tally::{Replicas, Tally};
use super::trigger::Limits;

/// How long what was known counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Time for which a replica, or a sign of work, that does not answer counts with its last value.
    pub keep: Duration,
    /// Time for which the last sum and the last activity count when nothing newer is known.
    pub stale_after: Duration,
}

/// All that is known about one workload.
#[derive(Debug)]
pub(super) struct State {
    pub(super) replicas: Replicas,
    signs: Vec<Sign>,
    patience: Patience,
    /// When the first round of the replicas ended.
    began: Option<Instant>,
    /// The sum to give.
    demand: Option<(f64, Instant)>,
    /// The sum by which the workload is active.
    load: Option<(f64, Instant)>,
    /// When a replica held requests last, unless all are known to be idle.
    busy: Option<Instant>,
    /// Whether every replica has been in a sum once.
    was_summed: bool,
}

/// A sign of work from elsewhere, such as the lag of a consumer group.
#[derive(Debug, Default)]
struct Sign {
    value: Option<(f64, Instant)>,
    failure: Option<String>,
    is_asked: bool,
}

/// What a sign of work says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seen {
    /// Its value, while it is known.
    pub(super) now: Option<f64>,
    /// Its last value, as long as it may still count for work.
    pub(super) held: Option<f64>,
}

/// What can be said about a workload now. What it means for a trigger depends on its limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    /// Whether the replicas and every sign of work have been asked at least once.
    pub(super) is_settled: bool,
    /// Sum of the demand, in replicas, if it is known.
    pub(super) demand: Option<f64>,
    /// Demand that is known of, whether or not it is all there is.
    pub(super) load: f64,
    /// Whether a replica holds requests, or did and does not say.
    pub(super) is_busy: bool,
    /// Whether `load` and `is_busy` are all there is.
    pub(super) is_complete: bool,
    /// By sign.
    pub(super) signs: Vec<Seen>,
    /// Why something is not known; empty when all is.
    pub(super) unknown: String,
    /// Replicas that answered, that count with their last answer, and that do not count.
    pub(super) fresh: usize,
    /// See `fresh`.
    pub(super) kept: usize,
    /// See `fresh`.
    pub(super) silent: usize,
    /// Whether nothing runs and there is nothing that could wake it.
    pub(super) is_asleep_for_good: bool,
}

impl View {
    /// Whether the workload should have a replica, by these limits, if that is known.
    pub(super) fn is_active(&self, limits: &Limits) -> Option<bool> {
        let signs = || self.signs.iter().zip(&limits.signs);
        // One sign of work says it for all. It counts on for a while when it is not known any more;
        // that there is none does not: a burst begins with a replica too busy to answer.
        let is_awake = |(seen, limit): (&Seen, &f64)| seen.held.is_some_and(|held| held > *limit);
        if self.is_busy || self.load > limits.activation || signs().any(is_awake) {
            return Some(true);
        }
        let is_known = self.is_complete && self.signs.iter().all(|seen| seen.now.is_some());
        is_known.then_some(false)
    }

    /// Whether a sign of work is known to be above its limit.
    pub(super) fn is_awake(&self, limits: &Limits) -> bool {
        let mut signs = self.signs.iter().zip(&limits.signs);
        signs.any(|(seen, limit)| seen.now.is_some_and(|now| now > *limit))
    }
}

impl State {
    /// Nothing known yet of so many places and signs.
    pub(super) fn new(places: usize, signs: usize, patience: Patience) -> Self {
        Self {
            replicas: Replicas::new(places),
            signs: (0..signs).map(|_| Sign::default()).collect(),
            patience,
            began: None,
            demand: None,
            load: None,
            busy: None,
            was_summed: false,
        }
    }

    /// What came of asking sign number `index`. Whether that is news, as for replicas.
    pub(super) fn read(&mut self, index: usize, value: Result<f64, String>, now: Instant) -> bool {
        let sign = &mut self.signs[index];
        sign.is_asked = true;
        let failed_before = sign.failure.is_some();
        match value {
            Ok(value) => {
                sign.value = Some((value, now));
                sign.failure = None;
            }
            Err(why) => sign.failure = Some(why),
        }
        failed_before != sign.failure.is_some()
    }

    /// A round of the replicas has ended.
    pub(super) fn end_round(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// What can be said now.
    pub(super) fn view(&mut self, now: Instant) -> View {
        let Patience { keep, stale_after } = self.patience;
        let tally = self.replicas.tally(keep, now);
        if let Some(began) = self.began {
            self.learn(&tally, began, now);
        }
        let demand = held(self.demand, stale_after, now);
        let seen = |sign: &Sign| sign.seen(self.patience, now);
        let signs: Vec<Seen> = self.signs.iter().map(seen).collect();
        let is_complete = self.began.is_some() && tally.is_complete();
        let is_known =
            demand.is_some() && is_complete && signs.iter().all(|seen| seen.now.is_some());
        View {
            is_settled: self.began.is_some() && self.signs.iter().all(|sign| sign.is_asked),
            demand,
            load: held(self.load, stale_after, now).unwrap_or(0.0),
            is_busy: held(self.busy.map(|at| ((), at)), stale_after, now).is_some(),
            is_complete,
            signs,
            unknown: if is_known {
                String::new()
            } else {
                self.why(&tally)
            },
            fresh: tally.fresh,
            kept: tally.kept,
            silent: tally.silent,
            is_asleep_for_good: self.began.is_some() && self.signs.is_empty() && tally.is_empty(),
        }
    }

    fn learn(&mut self, tally: &Tally, began: Instant, now: Instant) {
        let Patience { keep, stale_after } = self.patience;
        self.was_summed |= tally.is_complete();
        // A scaler that has just started knows nothing of a replica that is too busy to answer it, so
        // the first sum waits for every one, for a while. Later, an address that has not answered yet is
        // a replica that starts: without it, the sum is right.
        let may_sum = self.was_summed || now.duration_since(began) > keep;
        if may_sum && (tally.is_empty() || tally.fresh > 0) {
            // While DNS is away, replicas that answer are as many as there were: a sum of those
            // counts as long as one from before would.
            let known_at = match tally.unresolved {
                None => Some(now),
                Some(_) => tally.resolved,
            };
            if let Some(at) = known_at {
                let before = held(self.demand, stale_after, now);
                if tally.is_summed() || before.is_none_or(|before| tally.demand >= before) {
                    self.demand = Some((tally.demand, at));
                }
            }
        }
        let before = held(self.load, stale_after, now);
        if tally.is_complete() || before.is_none_or(|before| tally.demand >= before) {
            self.load = Some((tally.demand, now));
        }
        if tally.is_busy {
            self.busy = Some(now);
        } else if tally.is_complete() {
            self.busy = None;
        }
    }

    fn why(&self, tally: &Tally) -> String {
        let mut reasons = Vec::new();
        if self.began.is_none() {
            reasons.push("the replicas have not been asked yet".to_owned());
        }
        reasons.extend(tally.unresolved.clone());
        if let Some(failure) = &tally.failure {
            let (silent, all) = (tally.kept + tally.silent, tally.reporting() + tally.silent);
            reasons.push(format!(
                "{silent} of {all} replicas do not answer ({failure})"
            ));
        }
        reasons.extend(self.signs.iter().filter_map(|sign| sign.failure.clone()));
        reasons.join("; ")
    }
}

impl Sign {
    fn seen(&self, patience: Patience, now: Instant) -> Seen {
        match self.failure {
            // The next answer is to come.
            None => {
                let value = self.value.map(|(value, _)| value);
                Seen {
                    now: value,
                    held: value,
                }
            }
            Some(_) => Seen {
                now: held(self.value, patience.keep, now),
                held: held(self.value, patience.keep.max(patience.stale_after), now),
            },
        }
    }
}

/// A value that is not older than `time`.
fn held<T: Copy>(value: Option<(T, Instant)>, time: Duration, now: Instant) -> Option<T> {
    let (value, at) = value?;
    (now.duration_since(at) <= time).then_some(value)
}

#[cfg(test)]
mod tests;
