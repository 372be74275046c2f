use super::simulated::{HIGHEST_MIN, LogNormal, bounded};
use super::*;
use crate::autoscale::queueing::{BatchService, Host};

fn model(setup_ms: f64, request_ms: f64) -> ServerModel {
    ServerModel {
        service: BatchService {
            setup: setup_ms / 1e3,
            request: request_ms / 1e3,
        },
        batch_max: 128.0,
        host: Host::FREE,
    }
}

/// p99 divided by φ.
fn kappa(model: &ServerModel, rate: f64, variation: Variation) -> f64 {
    let found = simulate(model, rate, variation).unwrap();
    found / model.service.mean_latency(rate)
}

const SAME: Variation = Variation {
    sizes: 0.0,
    rate: 0.0,
    highest: f64::INFINITY,
};

#[test]
fn batches_that_are_mostly_setup_have_a_short_tail() {
    for rate in [500.0, 2000.0, 4000.0] {
        let ratio = kappa(&model(1.5, 0.12), rate, SAME);
        assert!((1.2..1.8).contains(&ratio), "{ratio} at {rate}");
    }
}

#[test]
fn requests_that_cost_their_own_time_have_a_long_tail() {
    let model = model(2.0, 20.0);
    let ratio = kappa(&model, 30.0, SAME);
    assert!((2.0..4.5).contains(&ratio), "{ratio}");
    let mixed = Variation { sizes: 1.0, ..SAME };
    let ratio = kappa(&model, 30.0, mixed);
    assert!((5.0..9.0).contains(&ratio), "{ratio} with many sizes");
}

/// Two requests fit into a batch if they are the same. Of different ones, two often do not.
#[test]
fn requests_that_do_not_fit_together_make_small_batches() {
    let model = ServerModel {
        batch_max: 2.4,
        ..model(25.0, 10.0)
    };
    let mixed = Variation { sizes: 0.4, ..SAME };
    let (same, mixed) = (kappa(&model, 30.0, SAME), kappa(&model, 30.0, mixed));
    assert!(mixed > 1.15 * same, "{mixed} against {same}");
}

/// The audit's independent simulation: 18 requests a second, where a clamped κ gave 33.
#[test]
fn the_rate_for_mixed_sizes_matches_an_independent_simulation() {
    let model = model(2.0, 20.0);
    let mut tail = Tail {
        variation: Variation { sizes: 1.0, ..SAME },
        ..Tail::default()
    };
    let usable = 0.85 * 45.0;
    let seconds = simulate(&model, 18.0, tail.variation).unwrap();
    for _ in 0..3 {
        tail.find(&model, usable, seconds);
    }
    let rate = tail.rate.unwrap();
    assert!((17.0..19.0).contains(&rate), "{rate}");
}

#[test]
fn bursty_arrivals_have_a_longer_tail() {
    let model = model(1.5, 0.12);
    let bursty = Variation { rate: 0.12, ..SAME };
    let (even, uneven) = (kappa(&model, 4000.0, SAME), kappa(&model, 4000.0, bursty));
    assert!(uneven > 1.3 * even, "{uneven} against {even}");
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut arrivals = SimulatedArrivals::new(&mut random, 100.0, bursty, 24);
    let last = (0..100_000)
        .map(|_| arrivals.draw().arrival)
        .last()
        .unwrap();
    assert!((0.95..1.05).contains(&(last / 1000.0)), "{last}");
}

/// At a κ of hundreds the mean latency decides nothing.
#[test]
fn in_bursts_the_capacity_is_the_rate_that_holds() {
    let model = shared_model();
    let computed = model.capacity(None);
    let mut tail = Tail::default();
    tail.find(&model, computed.rate, 0.05);
    assert_eq!(tail.capacity(computed), computed, "no bursts");
    tail.variation = Variation {
        rate: 0.36,
        highest: 1.6,
        ..SAME
    };
    for _ in 0..5 {
        tail.find(&model, computed.rate, 0.05);
    }
    let found = tail.capacity(Capacity {
        feasible: false,
        ..computed
    });
    assert!(
        found.feasible && found.rate < 0.9 * computed.rate,
        "{found:?}"
    );
    // The percentile rises from a few milliseconds to hundreds within a tenth more load.
    let p99 = tail.p99(&model, found.rate);
    assert!(p99 < 0.06, "{p99}");
    assert!(tail.p99(&model, 1.05 * found.rate) > 0.05);
    assert!(!tail.capacity(computed).rate.is_nan());
}

#[test]
fn no_second_is_above_the_highest() {
    let log_normal = LogNormal::with_variance(0.36);
    for count in [4, 24] {
        let all = log_normal.quantiles(count);
        assert_eq!(bounded(all.clone(), f64::INFINITY), all);
        for highest in [1.6, 1.2, 0.0] {
            let rates = bounded(all.clone(), highest);
            let mean = rates.iter().sum::<f64>() / count as f64;
            assert!((mean - 1.0).abs() < 1e-6, "{mean}");
            let most = rates.iter().copied().fold(0.0, f64::max);
            assert!(
                most <= highest.max(HIGHEST_MIN) + 1e-6,
                "{most} above {highest}"
            );
        }
    }
    // Two rates that differ as much end earlier than a log-normal one.
    let model = model(1.5, 0.12);
    let open = Variation { rate: 0.36, ..SAME };
    let ends = Variation {
        highest: 1.6,
        ..open
    };
    assert!(kappa(&model, 4000.0, ends) < kappa(&model, 4000.0, open));
}

/// However fast a server is, its seconds have the mean rate together, and more load is never better.
#[test]
fn bursty_seconds_are_all_simulated() {
    let bursty = Variation { rate: 0.2, ..SAME };
    let fast = model(0.5, 0.03);
    assert_eq!(bursty_seconds(&fast), 4);
    assert_eq!(bursty_seconds(&model(2.0, 20.0)), 24);
    for model in [fast, model(1.5, 0.12)] {
        let highest = model.service.rate(model.batch_max);
        let p99s: Vec<f64> = (2..9)
            .map(|tenths| f64::from(tenths) / 10.0 * highest)
            .map(|rate| simulate(&model, rate, bursty).unwrap())
            .collect();
        assert!(p99s.is_sorted(), "{p99s:?}");
    }
    for seconds in [4, 7, 24] {
        let rates = LogNormal::with_variance(0.2).quantiles(seconds);
        let mean = rates.iter().sum::<f64>() / seconds as f64;
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
    }
}

#[test]
fn the_search_ends_at_the_highest_rate_that_keeps_the_objective() {
    let model = model(3.0, 0.3);
    let usable = 0.85 * 2539.7;
    for millis in [8.0, 12.0, 30.0] {
        let mut tail = Tail::default();
        for _ in 0..12 {
            tail.find(&model, usable, millis / 1e3);
        }
        let rate = tail.rate.unwrap();
        let holds = |rate: f64| tail.p99(&model, rate) <= millis / 1e3;
        assert!(holds(0.97 * rate), "{rate} for {millis} ms");
        assert!(
            rate > 0.99 * usable || !holds(1.04 * rate),
            "{rate} for {millis} ms"
        );
    }
}

/// The objective is short beside a burst, and no rate but the right one may come of it.
#[test]
fn bursty_arrivals_have_a_rate_of_their_own() {
    let model = model(1.5, 0.12);
    let usable = model.capacity(None).rate;
    for rate in [0.05, 0.12, 0.3, 1.0] {
        let variation = Variation { rate, ..SAME };
        let mut tail = Tail {
            variation,
            ..Tail::default()
        };
        let rates: Vec<f64> = (0..10)
            .map(|_| {
                let kappa = tail.find(&model, usable, 0.02);
                let found = tail.rate.unwrap();
                assert!(
                    kappa * model.service.mean_latency(found) < 0.022,
                    "{rate}: {kappa}"
                );
                found
            })
            .collect();
        let last = &rates[5..];
        let steady = last.iter().all(|rate| (rate / last[0] - 1.0).abs() < 0.05);
        assert!(steady, "{rate}: {rates:?}");
        // The highest second should just be carried.
        let seconds = bursty_seconds(&model);
        let highest = LogNormal::with_variance(rate).quantiles(seconds);
        let highest = highest.into_iter().fold(0.0, f64::max);
        let share = last[0] * highest / model.service.rate(model.batch_max);
        assert!((0.7..1.15).contains(&share), "{rate}: {share}");
    }
}

#[test]
fn observation_corrects_the_simulation_within_the_range() {
    let model = model(1.5, 0.12);
    let mut tail = Tail::default();
    let simulated = tail.p99(&model, 2000.0);
    let learn = |tail: &mut Tail, factor: f64, is_cut| {
        for _ in 0..50 {
            tail.observe(&model, 2000.0, factor * simulated, is_cut);
        }
        tail.p99(&model, 2000.0) / simulated
    };
    assert!((learn(&mut tail, 1.4, false) - 1.4).abs() < 1e-3);
    assert!((learn(&mut tail, 100.0, false) - 2.0).abs() < 1e-3);
    assert!((learn(&mut tail, 0.1, false) - 0.7).abs() < 1e-3);
    // Refusals have cut off the rest.
    assert!((learn(&mut tail, 0.1, true) - 1.0).abs() < 1e-3);
    assert!((learn(&mut tail, 1.1, true) - 1.1).abs() < 1e-3);
    assert_eq!(tail.p99(&model, 1e9), f64::INFINITY);
}

/// A server on one core, where a request takes 0.1 ms outside the engine.
fn shared_model() -> ServerModel {
    ServerModel {
        host: Host {
            request: 0.1e-3,
            cores: 1.0,
            is_shared: true,
            ..Host::FREE
        },
        ..model(0.5, 0.1)
    }
}

/// A burst takes more of the cores for the host too.
#[test]
fn a_burst_on_shared_cores_is_longer() {
    let bursty = Variation { rate: 0.3, ..SAME };
    let shared = shared_model();
    // The same at the mean rate.
    let beside = ServerModel {
        service: shared.service_at(3000.0),
        ..model(0.5, 0.1)
    };
    let p99 = |model, rate| simulate(model, rate, bursty).unwrap();
    let (shared, beside) = (p99(&shared, 3000.0), p99(&beside, 3000.0));
    assert!(shared > 1.5 * beside, "{shared} against {beside}");
    // However high a burst is, a batch ends.
    let flood = Variation { rate: 1.0, ..SAME };
    let p99 = simulate(&shared_model(), 4000.0, flood);
    assert!(p99.is_none_or(|p99| p99 < 60.0), "{p99:?}");
}

/// On shared cores the batch of full load is a mean: a little more of it is a little more.
#[test]
fn the_batch_of_full_load_is_no_whole_number() {
    let p99 = |setup_ms| {
        let model = ServerModel {
            host: Host {
                request: 1e-3,
                cores: 1.0,
                is_shared: true,
                ..Host::FREE
            },
            ..model(setup_ms, 9.0)
        };
        let rate = 0.9 * model.capacity(None).rate;
        (model.batch(), simulate(&model, rate, SAME).unwrap())
    };
    let (below, above) = (p99(3.98), p99(4.02));
    assert!(below.0 < 2.0 && above.0 > 2.0, "{below:?} {above:?}");
    assert!((below.1 / above.1 - 1.0).abs() < 0.2, "{below:?} {above:?}");
}
