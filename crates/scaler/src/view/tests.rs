use std::net::SocketAddr;

use super::super::endpoint::Resolution;
use super::super::report::DemandReport;
use super::super::tally::PollFailure;
use super::*;

const STALENESS: Staleness = Staleness {
    keep: Duration::from_secs(30),
    stale_after: Duration::from_secs(300),
};

struct Workload {
    state: WorkloadState,
    thresholds: ActivityThresholds,
    began: Instant,
    now: Instant,
}

/// A view, and what follows from it with the thresholds of the workload.
#[derive(Debug)]
struct Outcome {
    view: View,
    is_active: Option<bool>,
    is_woken: bool,
}

impl std::ops::Deref for Outcome {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Workload {
    fn new(wake_thresholds: &[f64]) -> Self {
        Self {
            state: WorkloadState::new(1, wake_thresholds.len(), STALENESS),
            thresholds: ActivityThresholds {
                demand: 1e-6,
                wake: wake_thresholds.to_vec(),
            },
            began: Instant::now(),
            now: Instant::now(),
        }
    }

    /// A round, a second later, that finds replicas with these demands; `None` does not answer.
    fn round(&mut self, answers: &[Option<f64>]) -> Outcome {
        let addresses = (1..).zip(answers);
        let addresses = addresses.map(|(last, _)| address(last)).collect();
        self.round_with(Resolution::Addresses(addresses), answers)
    }

    fn unresolved(&mut self, answers: &[Option<f64>]) -> Outcome {
        self.round_with(Resolution::Failed("no servers".to_owned()), answers)
    }

    fn round_with(&mut self, found: Resolution, answers: &[Option<f64>]) -> Outcome {
        self.pass(1);
        self.state.replicas.resolve(vec![found], 100, self.now);
        for (last, answer) in (1..).zip(answers) {
            match answer {
                Some(demand) => self.answer(last, *demand),
                None => self.miss(last, false),
            }
        }
        self.state.end_round(self.now);
        self.view()
    }

    fn answer(&mut self, last: u8, demand: f64) {
        let report = DemandReport {
            pod: None,
            demand,
            is_busy: false,
        };
        let address = address(last);
        self.state.replicas.record(address, Ok(report), self.now);
    }

    fn miss(&mut self, last: u8, is_refused: bool) {
        let failure = PollFailure {
            why: "no answer".to_owned(),
            is_refused,
        };
        let address = address(last);
        self.state.replicas.record(address, Err(failure), self.now);
    }

    fn refuse(&mut self, last: u8) -> Outcome {
        self.miss(last, true);
        self.view()
    }

    fn view(&mut self) -> Outcome {
        let view = self.state.view(self.now);
        Outcome {
            is_active: view.is_active(&self.thresholds),
            is_woken: view.is_woken(&self.thresholds),
            view,
        }
    }

    fn signal(&mut self, value: Option<f64>) -> Outcome {
        let value = value.ok_or_else(|| "no metrics".to_owned());
        self.state.read(0, value, self.now);
        self.view()
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
    let view = workload.view();
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
async fn the_sum_is_kept_for_a_while_when_no_replica_answers() {
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
async fn without_dns_the_known_replicas_count_for_a_while() {
    let mut workload = Workload::new(&[]);
    workload.round(&[Some(1.0)]);
    assert_eq!(workload.unresolved(&[Some(2.0)]).demand, Some(2.0));
    workload.pass(299);
    let view = workload.unresolved(&[Some(3.0)]);
    assert_eq!(view.demand, None);
    assert_eq!(view.is_active, Some(true), "the replicas answer");
    assert!(view.unknown.contains("no servers"), "{view:?}");
}

#[tokio::test(start_paused = true)]
async fn inactive_is_reported_only_when_all_replicas_are_known_to_be_idle() {
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
        "its last report counts"
    );
    workload.pass(29);
    assert_eq!(
        workload.round(&[Some(0.0), None]).is_active,
        None,
        "a burst may have begun"
    );
    assert_eq!(workload.round(&[Some(0.0); 2]).is_active, Some(false));
    assert_eq!(workload.round(&[Some(0.5); 2]).is_active, Some(true));
    workload.pass(299);
    assert_eq!(workload.round(&[None, None]).is_active, Some(true));
    workload.pass(1);
    assert_eq!(workload.round(&[Some(0.0), None]).is_active, None);
}

/// KEDA starts replicas for a workload whose activity it is not told.
#[tokio::test(start_paused = true)]
async fn an_outage_of_dns_leaves_an_idle_workload_idle() {
    let mut workload = Workload::new(&[]);
    assert_eq!(workload.round(&[Some(0.0)]).is_active, Some(false));
    for _ in 0..60 {
        assert_eq!(workload.unresolved(&[Some(0.0)]).is_active, Some(false));
    }
    assert_eq!(
        workload.unresolved(&[Some(0.5)]).is_active,
        Some(true),
        "the known replicas are asked"
    );
    let mut none = Workload::new(&[]);
    assert_eq!(none.round(&[]).is_active, Some(false));
    none.pass(298);
    assert_eq!(none.unresolved(&[]).is_active, Some(false));
    none.pass(1);
    assert_eq!(none.unresolved(&[]).is_active, None, "too long ago");
}

/// The same for Prometheus and Kafka.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_wake_source_leaves_an_idle_workload_idle() {
    let mut workload = Workload::new(&[0.0]);
    workload.signal(Some(0.0));
    assert_eq!(workload.round(&[]).is_active, Some(false));
    workload.signal(None);
    workload.pass(80);
    let view = workload.round(&[]);
    assert_eq!(view.is_active, Some(false));
    assert!(view.unknown.contains("no metrics"), "{view:?}");
}

/// A replica that does not count any more, or has not answered yet, may have demand.
#[tokio::test(start_paused = true)]
async fn a_sum_with_a_missing_replica_does_not_fall() {
    let mut workload = Workload::new(&[]);
    assert_eq!(workload.round(&[Some(1.0), Some(2.0)]).demand, Some(3.0));
    assert_eq!(workload.round(&[Some(0.5), None]).demand, Some(3.0));
    workload.pass(100);
    let view = workload.round(&[Some(1.0), None]);
    assert_eq!((view.replicas.silent, view.demand), (1, Some(3.0)));
    assert_eq!(workload.round(&[Some(4.0), None]).demand, Some(4.0));
    assert_eq!(workload.round(&[Some(1.0), None]).demand, Some(4.0));
    assert_eq!(workload.round(&[Some(1.0)]).demand, Some(1.0), "it is gone");
    let view = workload.round(&[Some(1.0), None]);
    assert_eq!(view.demand, Some(1.0), "a replica starts");
    workload.round(&[Some(1.0), Some(2.0)]);
    workload.pass(300);
    assert_eq!(workload.round(&[Some(1.0), None]).demand, Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn the_first_sum_waits_for_every_replica_for_a_while() {
    let mut workload = Workload::new(&[]);
    let view = workload.round(&[Some(1.0), None]);
    assert_eq!((view.demand, view.is_active), (None, Some(true)));
    assert!(view.unknown.contains("1 of 2"), "{view:?}");
    workload.pass(30);
    assert_eq!(workload.round(&[Some(1.0), None]).demand, Some(1.0));
    let mut workload = Workload::new(&[]);
    workload.round(&[Some(1.0), None]);
    assert_eq!(workload.round(&[Some(1.0), Some(9.0)]).demand, Some(10.0));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_refuses_and_never_answered_is_idle_after_a_while() {
    let mut workload = Workload::new(&[]);
    workload.round(&[Some(0.0), None]);
    for (seconds, is_active) in [(0, None), (29, None), (1, Some(false))] {
        workload.pass(seconds);
        let view = workload.refuse(2);
        assert_eq!(view.is_active, is_active, "{view:?}");
    }
    assert_eq!(workload.view().demand, Some(0.0));
}

/// The others take its load, which must not count a second time with its last report.
#[tokio::test(start_paused = true)]
async fn the_load_of_a_replica_that_refuses_counts_once() {
    let mut workload = Workload::new(&[]);
    let both = [Some(1.0), Some(1.0), Some(1.0)];
    assert_eq!(workload.round(&both).demand, Some(3.0));
    for (second, others, sum) in [
        (0, 1.0, 3.0),
        (1, 1.2, 3.0),
        (5, 1.5, 3.0),
        (10, 1.8, 3.6),
        (15, 1.5, 3.6),
        (31, 1.5, 3.0),
        (60, 1.2, 2.4),
    ] {
        workload.now = workload.began + Duration::from_secs(1 + second);
        workload.answer(1, others);
        workload.answer(2, others);
        let found = workload.refuse(3).demand.unwrap();
        assert!((found - sum).abs() < 1e-9, "{found} after {second} s");
    }
    // It is back, and the load moves to it again.
    workload.answer(1, 0.8);
    workload.answer(2, 0.8);
    workload.answer(3, 0.8);
    let sum = workload.view().demand.unwrap();
    assert!((sum - 2.4).abs() < 1e-9, "{sum}");
}

#[tokio::test(start_paused = true)]
async fn a_workload_without_addresses_is_known_to_be_idle() {
    let mut workload = Workload::new(&[]);
    assert_eq!(workload.unresolved(&[]).is_active, None);
    let view = workload.round(&[]);
    assert_eq!((view.demand, view.is_active), (Some(0.0), Some(false)));
    assert!(view.cannot_wake);
    assert!(!workload.round(&[Some(0.0)]).cannot_wake);
}

#[tokio::test(start_paused = true)]
async fn a_wake_signal_activates_and_an_unknown_one_leaves_the_activity_unknown() {
    let mut workload = Workload::new(&[10.0]);
    let view = workload.round(&[]);
    assert!(!view.is_settled && !view.cannot_wake);
    assert_eq!(view.is_active, None);
    assert_eq!(
        workload.signal(Some(10.0)).is_active,
        Some(false),
        "not above it"
    );
    assert_eq!(workload.signal(None).is_active, Some(false), "kept");
    let view = workload.signal(Some(10.5));
    assert!(view.is_settled && view.is_woken);
    assert_eq!(view.is_active, Some(true));
    workload.signal(None);
    workload.pass(30);
    assert_eq!(workload.round(&[]).is_active, Some(true), "held");
    workload.pass(300);
    let view = workload.round(&[]);
    assert_eq!((view.is_active, view.is_woken), (None, false));
    assert!(view.unknown.contains("no metrics"), "{view:?}");
    assert_eq!(view.demand, Some(0.0), "the demand is still known");
}

#[tokio::test(start_paused = true)]
async fn a_wake_signal_that_cannot_be_read_counts_for_a_while() {
    let mut workload = Workload::new(&[0.0]);
    workload.signal(Some(0.0));
    workload.pass(100);
    assert_eq!(
        workload.round(&[]).is_active,
        Some(false),
        "the next read is pending"
    );
    workload.signal(None);
    workload.pass(1000);
    assert_eq!(workload.round(&[]).is_active, None);
}

#[tokio::test(start_paused = true)]
async fn requests_in_a_replica_are_activity_without_demand() {
    let mut workload = Workload::new(&[]);
    workload.round(&[Some(0.0)]);
    let busy = DemandReport {
        pod: None,
        demand: 0.0,
        is_busy: true,
    };
    workload
        .state
        .replicas
        .record(address(1), Ok(busy), workload.now);
    assert_eq!(workload.view().is_active, Some(true));
}
