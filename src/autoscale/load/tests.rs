use super::*;

/// A replica that takes as much as `capacity`.
fn replica(capacity: f64) -> ReplicaShare {
    ReplicaShare {
        capacity,
        utilization: 1.0,
    }
}

/// Answers `rate` requests per second of `tokens` each, for `seconds`.
fn answer(load: &mut OfferedLoad, counts: &mut Counts, rate: u64, tokens: u64, seconds: u32) {
    for _ in 0..2 * seconds {
        counts.offered += rate / 2;
        counts.answered += rate / 2;
        counts.sized += rate / 2;
        counts.tokens += rate / 2 * tokens;
        counts.squares += rate / 2 * tokens * tokens;
        load.update(*counts, 0.5, replica(100.0));
    }
}

#[test]
fn rates_follow_the_load_and_are_zero_a_minute_after_it() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    assert_eq!(load.rates(), Flows::default());
    answer(&mut load, &mut counts, 100, 20, 60);
    let rates = load.rates();
    assert!((98.0..=100.0).contains(&rates.offered), "{rates:?}");
    assert!((rates.tokens / rates.offered - 20.0).abs() < 1e-6);
    assert!((load.request_tokens() - 20.0).abs() < 1e-6);
    answer(&mut load, &mut counts, 0, 0, 61);
    assert_eq!(load.rates(), Flows::default());
    assert!((load.request_tokens() - 20.0).abs() < 1e-6);
}

#[test]
fn large_requests_are_more_work() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    answer(&mut load, &mut counts, 100, 10, 120);
    let small = load.rates().tokens;
    answer(&mut load, &mut counts, 100, 320, 120);
    assert!(load.rates().tokens / small > 30.0);
    assert!(load.request_tokens() > 250.0);
}

#[test]
fn offered_requests_are_bounded() {
    let overloaded = |offered: u64, shed: u64| {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        for _ in 0..240 {
            counts.offered += offered;
            counts.shed += shed;
            counts.answered += offered - shed;
            load.update(counts, 0.5, replica(100.0));
        }
        load.rates().offered
    };
    let fivefold = overloaded(250, 200);
    assert!((fivefold - 500.0).abs() < 1.0, "{fivefold}");
    let storm = overloaded(500_000, 499_950);
    assert!((storm - 1000.0).abs() < 1.0, "{storm}");
    let down = overloaded(1000, 1000);
    assert!((down - 1000.0).abs() < 1.0, "accepting nothing: {down}");
}

#[test]
fn tokens_of_refused_lists_are_bounded() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    for _ in 0..240 {
        counts.offered += 60;
        counts.answered += 50;
        counts.sized += 60;
        counts.tokens += 50 * 16 + 10 * 131_072;
        load.update(counts, 0.5, replica(100.0));
    }
    let most = 10.0 * 100.0 * load.request_tokens();
    assert!(load.rates().tokens <= most * 1.001);
}

#[test]
fn without_a_model_every_request_counts() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    counts.offered += 20;
    counts.shed += 20;
    load.update(counts, 0.5, replica(0.0));
    assert!(load.rates().offered > 0.0);
}

#[test]
fn load_from_before_an_idle_minute_does_not_come_back() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    answer(&mut load, &mut counts, 10_000, 10, 60);
    answer(&mut load, &mut counts, 0, 0, 61);
    answer(&mut load, &mut counts, 2, 10, 1);
    assert!(load.rates().offered < 1.0, "{:?}", load.rates());
}

#[test]
fn discounted_requests_are_no_load() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    for _ in 0..100 {
        // Half of them are discounted in the next update.
        counts.offered += 50;
        counts.discounted += 25;
        load.update(counts, 0.25, replica(1000.0));
        counts.discounted += 25;
        load.update(counts, 0.25, replica(1000.0));
    }
    for _ in 0..100 {
        counts.offered += 50;
        counts.discounted += 50;
        load.update(counts, 0.5, replica(1000.0));
    }
    assert!(load.rates().offered < 10.0, "{:?}", load.rates());
}

#[test]
fn a_ramp_has_its_slope() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    for second in 0..600 {
        counts.offered += second;
        load.update(counts, 1.0, replica(1e6));
    }
    let slope = load.slope();
    assert!((0.95..1.05).contains(&slope), "{slope}");
}

#[test]
fn the_sum_over_replicas_does_not_move_when_one_joins() {
    let mut counts = [Counts::default(); 2];
    let mut loads = counts.map(OfferedLoad::new);
    answer(&mut loads[0], &mut counts[0], 100, 10, 120);
    for _ in 0..30 {
        answer(&mut loads[0], &mut counts[0], 50, 10, 1);
        answer(&mut loads[1], &mut counts[1], 50, 10, 1);
        let sum: f64 = loads.iter().map(|load| load.rates().offered).sum();
        assert!((99.0..101.0).contains(&sum), "{sum}");
    }
}

/// Where a replica joins, the others lose a part of their load at once. That is no trend for any of them.
#[test]
fn a_step_is_no_trend() {
    let mut counts = Counts::default();
    let mut load = OfferedLoad::new(counts);
    answer(&mut load, &mut counts, 1000, 10, 120);
    assert!(load.slope().abs() < 1.0, "{}", load.slope());
    answer(&mut load, &mut counts, 500, 10, 8);
    let (offered, slope) = (load.rates().offered, load.slope());
    assert!((450.0..=560.0).contains(&offered), "{offered}");
    assert!(slope.abs() < 1.0, "{slope}");
    answer(&mut load, &mut counts, 1000, 10, 8);
    let (offered, slope) = (load.rates().offered, load.slope());
    assert!((940.0..=1010.0).contains(&offered), "{offered}");
    assert!(slope.abs() < 1.0, "{slope}");
}
