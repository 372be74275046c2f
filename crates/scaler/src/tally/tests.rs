use super::*;

const KEEP: Duration = Duration::from_secs(30);

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 9100))
}

fn addresses(last: &[u8]) -> Vec<Resolution> {
    vec![Resolution::Addresses(
        last.iter().copied().map(address).collect(),
    )]
}

fn reports(demand: f64) -> Result<DemandReport, PollFailure> {
    Ok(DemandReport {
        pod: None,
        demand,
        is_busy: false,
    })
}

fn pod(name: &str, demand: f64) -> Result<DemandReport, PollFailure> {
    Ok(DemandReport {
        pod: Some(name.into()),
        ..reports(demand)?
    })
}

fn silence() -> Result<DemandReport, PollFailure> {
    Err(PollFailure {
        why: "no answer".to_owned(),
        is_refused: false,
    })
}

fn refuses() -> Result<DemandReport, PollFailure> {
    Err(PollFailure {
        why: "refused".to_owned(),
        is_refused: true,
    })
}

/// A pod that ends refuses connections before its address leaves DNS. That is no news.
#[tokio::test(start_paused = true)]
async fn a_replica_is_logged_as_lost_once_it_is_silent_for_a_while() {
    let mut replicas = Replicas::new(1);
    let start = Instant::now();
    replicas.resolve(addresses(&[1]), 10, start);
    let at = |seconds| start + Duration::from_secs(seconds);
    let polls = [
        (0, reports(1.0), None),
        (1, silence(), None),
        (10, silence(), None),
        (11, silence(), Some(ReplicaChange::Lost)),
        (12, silence(), None),
        (13, reports(1.0), Some(ReplicaChange::Found)),
        (14, reports(1.0), None),
        (15, silence(), None),
        (16, reports(1.0), None),
    ];
    for (seconds, result, expected) in polls {
        let change = replicas.record(address(1), result, at(seconds));
        assert_eq!(change, expected, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_replica_counts_for_a_while_and_a_removed_one_does_not() {
    let mut replicas = Replicas::new(1);
    let start = Instant::now();
    assert_eq!(replicas.resolve(addresses(&[1, 2, 3]), 10, start).len(), 3);
    for last in 1..=3 {
        replicas.record(address(last), reports(1.5), start);
    }
    let tally = replicas.tally(KEEP, start);
    assert_eq!((tally.demand, tally.replicas.fresh), (4.5, 3));
    assert!(tally.is_complete());

    let later = start + KEEP;
    replicas.resolve(addresses(&[1, 2]), 10, later);
    replicas.record(address(1), silence(), later);
    replicas.record(address(2), reports(2.0), later);
    let tally = replicas.tally(KEEP, later);
    assert_eq!(
        (tally.demand, tally.replicas.fresh, tally.replicas.kept),
        (3.5, 1, 1)
    );
    assert!(!tally.is_complete());
    assert_eq!(tally.failure.as_deref(), Some("10.0.0.1:9100: no answer"));

    let much_later = later + Duration::from_millis(1);
    let tally = replicas.tally(KEEP, much_later);
    assert_eq!(
        (tally.demand, tally.replicas.kept, tally.replicas.silent),
        (2.0, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_refuses_for_a_while_is_absent() {
    let mut replicas = Replicas::new(1);
    let start = Instant::now();
    replicas.resolve(addresses(&[1, 2, 3]), 10, start);
    for last in 1..=3 {
        replicas.record(address(last), refuses(), start);
    }
    assert_eq!(replicas.tally(KEEP, start).absent, 0);
    let later = start + KEEP;
    replicas.record(address(1), refuses(), later);
    replicas.record(address(2), silence(), later);
    replicas.record(address(3), reports(0.0), later);
    let tally = replicas.tally(KEEP, later);
    assert_eq!(
        (tally.replicas.fresh, tally.replicas.silent, tally.absent),
        (1, 2, 1)
    );
    assert!(!tally.is_complete(), "one may be busy");
    replicas.resolve(addresses(&[1, 3]), 10, later);
    let tally = replicas.tally(KEEP, later);
    assert!(tally.is_complete() && !tally.is_empty());

    // One that has answered is absent only while others answer.
    let last = later + Duration::from_secs(1);
    replicas.record(address(3), refuses(), last);
    let tally = replicas.tally(KEEP, later + KEEP);
    assert_eq!((tally.replicas.kept, tally.absent), (1, 1));
    let tally = replicas.tally(KEEP, last + KEEP);
    assert_eq!((tally.replicas.silent, tally.absent), (2, 1));
    replicas.resolve(addresses(&[1, 3, 4]), 10, last);
    replicas.record(address(4), reports(1.0), last + KEEP);
    let tally = replicas.tally(KEEP, last + KEEP);
    assert_eq!((tally.replicas.silent, tally.absent), (2, 2));
    replicas.resolve(addresses(&[1]), 10, later);
    assert!(!replicas.tally(KEEP, later).is_empty(), "it may yet start");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_be_resolved_keeps_its_addresses() {
    let mut replicas = Replicas::new(2);
    let start = Instant::now();
    let mut both = addresses(&[1]);
    both.extend(addresses(&[2]));
    replicas.resolve(both, 10, start);
    let later = start + KEEP;
    let mut one = addresses(&[]);
    one.push(Resolution::Failed("servers fail".to_owned()));
    assert_eq!(replicas.resolve(one, 10, later), [address(2)]);
    let tally = replicas.tally(KEEP, later);
    assert_eq!(tally.unresolved.as_deref(), Some("servers fail"));
    assert_eq!(tally.resolved, Some(start));
    let mut many = addresses(&[]);
    many.extend(addresses(&[4, 5, 6]));
    assert_eq!(replicas.resolve(many, 2, later), [address(2)]);
    let tally = replicas.tally(KEEP, later);
    assert!(
        tally
            .unresolved
            .is_some_and(|why| why.contains("--max-replicas"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_two_addresses_counts_once() {
    let mut replicas = Replicas::new(1);
    let now = Instant::now();
    let v6 = |last: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 9100));
    let all = vec![address(1), v6(1), v6(2)];
    replicas.resolve(vec![Resolution::Addresses(all)], 10, now);
    replicas.record(address(1), pod("a", 1.0), now);
    replicas.record(v6(1), pod("a", 1.0), now);
    replicas.record(v6(2), pod("b", 2.0), now);
    let tally = replicas.tally(KEEP, now);
    assert_eq!((tally.demand, tally.replicas.fresh), (3.0, 2));
}

/// Several servers on one machine have the same name.
#[tokio::test(start_paused = true)]
async fn replicas_of_one_name_and_one_address_family_count_separately() {
    let mut replicas = Replicas::new(1);
    let now = Instant::now();
    replicas.resolve(addresses(&[1, 2]), 10, now);
    replicas.record(address(1), pod("a", 1.0), now);
    replicas.record(address(2), pod("a", 1.0), now);
    assert_eq!(replicas.tally(KEEP, now).demand, 2.0);
}

#[tokio::test(start_paused = true)]
async fn an_address_of_two_endpoints_is_one_replica() {
    let mut replicas = Replicas::new(2);
    let now = Instant::now();
    let both = [addresses(&[1]), addresses(&[1])].concat();
    assert_eq!(replicas.resolve(both, 10, now), [address(1)]);
    replicas.record(address(1), reports(1.0), now);
    assert_eq!(replicas.tally(KEEP, now).demand, 1.0);
}
