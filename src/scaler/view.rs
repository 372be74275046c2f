//! What is known about a workload, and for how long. Pure: time is an argument.
//!
//! A number is given only while it is known: the sum when DNS and at least one replica answered, and for
//! a bounded time after. "Inactive" is said only when every replica is known to be idle and every sign
//! of work is known to be absent: a workload that is stopped for want of knowledge loses requests, one
//! that runs for want of knowledge costs a replica.

use std::time::Duration;

use tokio::time::Instant;

use super::tally::{Replicas, Tally};

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
    /// Demand, in replicas, above which the workload is active.
    activation: f64,
    patience: Patience,
    /// Rounds of the replicas that have ended.
    rounds: u64,
    demand: Option<(f64, Instant)>,
    is_active: Option<(bool, Instant)>,
}

/// A sign of work from elsewhere, such as the lag of a consumer group.
#[derive(Debug)]
struct Sign {
    threshold: f64,
    value: Option<(f64, Instant)>,
    failure: Option<String>,
    is_asked: bool,
}

/// What can be said about a workload now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    /// Whether the replicas and every sign of work have been asked at least once.
    pub(super) is_settled: bool,
    /// Sum of the demand, in replicas, or why it is not known.
    pub(super) demand: Option<f64>,
    /// Whether the workload should have a replica.
    pub(super) is_active: Option<bool>,
    /// Whether a sign of work is above its threshold.
    pub(super) is_awake: bool,
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

impl State {
    /// Nothing known yet of so many places and of signs with these thresholds.
    pub(super) fn new(
        places: usize,
        thresholds: &[f64],
        activation: f64,
        patience: Patience,
    ) -> Self {
        let sign = |threshold: &f64| Sign {
            threshold: *threshold,
            value: None,
            failure: None,
            is_asked: false,
        };
        Self {
            replicas: Replicas::new(places),
            signs: thresholds.iter().map(sign).collect(),
            activation,
            patience,
            rounds: 0,
            demand: None,
            is_active: None,
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
    pub(super) fn end_round(&mut self) {
        self.rounds += 1;
    }

    /// What can be said now.
    pub(super) fn view(&mut self, now: Instant) -> View {
        let tally = self.replicas.tally(self.patience.keep, now);
        let is_awake = self.is_awake(now);
        self.learn(&tally, is_awake, now);
        let stale_after = self.patience.stale_after;
        let demand = held(self.demand, stale_after, now);
        let is_active = held(self.is_active, stale_after, now);
        let unknown = match (demand, is_active) {
            (Some(_), Some(_)) => String::new(),
            _ => self.why(&tally),
        };
        View {
            is_settled: self.rounds > 0 && self.signs.iter().all(|sign| sign.is_asked),
            demand,
            is_active,
            is_awake: is_awake == Some(true),
            unknown,
            fresh: tally.fresh,
            kept: tally.kept,
            silent: tally.silent,
            is_asleep_for_good: self.rounds > 0
                && self.signs.is_empty()
                && tally.is_complete()
                && tally.fresh == 0,
        }
    }

    fn learn(&mut self, tally: &Tally, is_awake: Option<bool>, now: Instant) {
        let is_asked = self.rounds > 0;
        let is_empty = tally.is_complete() && tally.fresh == 0;
        if is_asked && (is_empty || tally.fresh > 0) {
            // While DNS is away, replicas that answer are as many as there were: a sum of those
            // counts as long as one from before would.
            let known_at = match tally.unresolved {
                None => Some(now),
                Some(_) => tally.resolved,
            };
            self.demand = known_at.map(|at| (tally.demand, at)).or(self.demand);
        }
        let is_busy = tally.is_busy || tally.demand > self.activation;
        if is_busy || is_awake == Some(true) {
            self.is_active = Some((true, now));
        } else if is_asked && tally.is_complete() && is_awake == Some(false) {
            self.is_active = Some((false, now));
        }
    }

    /// Whether there is a sign of work, if that is known.
    fn is_awake(&self, now: Instant) -> Option<bool> {
        let known = |sign: &Sign| {
            let value = match sign.failure {
                None => sign.value.map(|(value, _)| value)?,
                Some(_) => held(sign.value, self.patience.keep, now)?,
            };
            Some(value > sign.threshold)
        };
        let mut is_open = false;
        for sign in &self.signs {
            match known(sign) {
                // One that is above says it for all; one that is unknown leaves it open.
                Some(true) => return Some(true),
                Some(false) => {}
                None => is_open = true,
            }
        }
        (!is_open).then_some(false)
    }

    fn why(&self, tally: &Tally) -> String {
        let mut reasons = Vec::new();
        if self.rounds == 0 {
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

/// A value that is not older than `time`.
fn held<T: Copy>(value: Option<(T, Instant)>, time: Duration, now: Instant) -> Option<T> {
    let (value, at) = value?;
    (now.duration_since(at) <= time).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::scaler::place::Resolution;
    use crate::scaler::report::Report;

    const PATIENCE: Patience = Patience {
        keep: Duration::from_secs(30),
        stale_after: Duration::from_secs(300),
    };

    struct Workload {
        state: State,
        now: Instant,
    }

    impl Workload {
        fn new(signs: &[f64]) -> Self {
            Self {
                state: State::new(1, signs, 1e-6, PATIENCE),
                now: Instant::now(),
            }
        }

        /// A second passes, then replicas with these answers are found.
        fn round(&mut self, answers: &[Option<f64>]) -> View {
            let addresses = (1..).zip(answers);
            let addresses = addresses.map(|(last, _)| address(last)).collect();
            self.round_with(Resolution::Addresses(addresses), answers)
        }

        fn unresolved(&mut self, answers: &[Option<f64>]) -> View {
            self.round_with(Resolution::Failed("no servers".to_owned()), answers)
        }

        fn round_with(&mut self, found: Resolution, answers: &[Option<f64>]) -> View {
            self.pass(1);
            self.state.replicas.resolve(vec![found], 100, self.now);
            for (last, answer) in (1..).zip(answers) {
                let report = answer.map(|demand| Report {
                    pod: None,
                    demand,
                    is_busy: false,
                });
                let answer = report.ok_or_else(|| "refused".to_owned());
                self.state.replicas.answer(address(last), answer, self.now);
            }
            self.state.end_round();
            self.state.view(self.now)
        }

        fn sign(&mut self, value: Option<f64>) -> View {
            let value = value.ok_or_else(|| "no metrics".to_owned());
            self.state.read(0, value, self.now);
            self.state.view(self.now)
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9100))
    }

    #[tokio::test(start_paused = true)]
    async fn before_anything_is_asked_nothing_is_known() {
        let mut workload = Workload::new(&[]);
        let view = workload.state.view(workload.now);
        assert!(!view.is_settled);
        assert_eq!((view.demand, view.is_active), (None, None));
        assert!(view.unknown.contains("not been asked"), "{view:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_never_answered_are_neither_idle_nor_a_number() {
        let mut workload = Workload::new(&[]);
        let view = workload.round(&[None, None]);
        assert!(view.is_settled);
        assert_eq!((view.demand, view.is_active), (None, None));
        assert!(view.unknown.contains("2 of 2"), "{view:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_sum_is_kept_for_a_while_when_nobody_answers() {
        let mut workload = Workload::new(&[]);
        assert_eq!(workload.round(&[Some(1.0), Some(2.0)]).demand, Some(3.0));
        workload.pass(299);
        let view = workload.round(&[None, None]);
        assert_eq!((view.demand, view.is_active), (Some(3.0), Some(true)));
        let view = workload.round(&[None, None]);
        assert_eq!((view.demand, view.is_active), (None, None));
        assert_eq!(workload.round(&[Some(1.0), None]).demand, Some(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_dns_the_replicas_there_were_are_asked_on_for_a_while() {
        let mut workload = Workload::new(&[]);
        workload.round(&[Some(1.0)]);
        assert_eq!(workload.unresolved(&[Some(2.0)]).demand, Some(2.0));
        workload.pass(299);
        let view = workload.unresolved(&[Some(3.0)]);
        assert_eq!(view.demand, None);
        assert_eq!(view.is_active, Some(true), "they do answer");
        assert!(view.unknown.contains("no servers"), "{view:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_said_only_when_all_are_known_to_be() {
        let mut workload = Workload::new(&[]);
        assert_eq!(workload.round(&[Some(0.0), None]).is_active, None);
        assert_eq!(
            workload.round(&[Some(0.0), Some(0.1)]).is_active,
            Some(true)
        );
        assert_eq!(workload.round(&[Some(0.0), None]).is_active, Some(true));
        assert_eq!(
            workload.unresolved(&[Some(0.0), Some(0.0)]).is_active,
            Some(true)
        );
        assert_eq!(
            workload.round(&[Some(0.0), Some(1e-7)]).is_active,
            Some(false)
        );
        assert_eq!(
            workload.round(&[Some(0.0), None]).is_active,
            Some(false),
            "as before"
        );
        workload.pass(300);
        assert_eq!(workload.round(&[Some(0.0), None]).is_active, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_that_runs_is_known_to_be_idle() {
        let mut workload = Workload::new(&[]);
        assert_eq!(workload.unresolved(&[]).is_active, None);
        let view = workload.round(&[]);
        assert_eq!((view.demand, view.is_active), (Some(0.0), Some(false)));
        assert!(view.is_asleep_for_good);
        assert!(!workload.round(&[Some(0.0)]).is_asleep_for_good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_work_wakes_and_an_unknown_one_leaves_it_open() {
        let mut workload = Workload::new(&[10.0]);
        let view = workload.round(&[]);
        assert!(!view.is_settled && !view.is_asleep_for_good);
        assert_eq!(view.is_active, None);
        assert_eq!(
            workload.sign(Some(10.0)).is_active,
            Some(false),
            "not above it"
        );
        assert_eq!(workload.sign(None).is_active, Some(false), "kept");
        let view = workload.sign(Some(10.5));
        assert!(view.is_settled && view.is_awake);
        assert_eq!(view.is_active, Some(true));
        workload.sign(None);
        workload.pass(30);
        assert_eq!(workload.round(&[]).is_active, Some(true), "as it was");
        workload.pass(300);
        let view = workload.round(&[]);
        assert_eq!((view.is_active, view.is_awake), (None, false));
        assert!(view.unknown.contains("no metrics"), "{view:?}");
        assert_eq!(view.demand, Some(0.0), "that is known all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_that_is_asked_in_vain_counts_for_a_while() {
        let mut workload = Workload::new(&[0.0]);
        workload.sign(Some(0.0));
        workload.pass(100);
        assert_eq!(
            workload.round(&[]).is_active,
            Some(false),
            "the next answer is to come"
        );
        workload.sign(None);
        workload.pass(1000);
        assert_eq!(workload.round(&[]).is_active, None);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_a_replica_are_activity_without_demand() {
        let mut workload = Workload::new(&[]);
        workload.round(&[Some(0.0)]);
        let busy = Report {
            pod: None,
            demand: 0.0,
            is_busy: true,
        };
        workload
            .state
            .replicas
            .answer(address(1), Ok(busy), workload.now);
        assert_eq!(workload.state.view(workload.now).is_active, Some(true));
    }
}
