use std::time::Duration;

use super::*;
use crate::autoscale::tail::Variation;
use crate::serving::ByteCost;

const CONDITIONS: Conditions = Conditions {
    request_tokens: 10.0,
    request_texts: 1.0,
    request_bytes: 0.0,
    batch_texts: 256.0,
    cores: 4.0,
    shares_cores: false,
    objective: Some(0.02),
};

const QUIET: ObservedInterval = ObservedInterval {
    elapsed: 2.0,
    answered: 0.0,
    batches: 0.0,
    engine: EngineTime {
        elapsed: Duration::ZERO,
        spent: Duration::ZERO,
    },
    host: Some(0.0),
    offered: 0.0,
    overload_share: 0.0,
    is_missed: false,
    latency: LatencySummary {
        count: 0,
        mean: 0.0,
        p99: 0.0,
    },
    overhead: LatencySummary {
        count: 0,
        mean: 0.0,
        p99: 0.0,
    },
    threads: None,
    threads_max: 1.0,
    variation: Variation {
        sizes: 0.0,
        rate: 0.0,
        highest: f64::INFINITY,
    },
    large: 0.0,
};

/// A model with 1.5 ms per batch and 0.12 ms per request of ten tokens, times `factor`.
fn seen(factor: f64, batches: u64) -> Observation {
    Observation {
        generation: 0,
        setup: 1.5e-3 * factor,
        token: 0.012e-3 * factor,
        fit_error: 0.02,
        samples: batches,
        batches,
        batch_tokens: 4096,
        batch_texts: 256,
        shares_cores: false,
        computes_alone: false,
        engine: EngineTime::default(),
        byte: ByteCost {
            seconds: 3e-9,
            is_known: false,
        },
        waiting_tokens: 0,
        backlog: 0,
        waiting_texts: 0,
        oldest_wait: Duration::ZERO,
        in_flight: 0,
    }
}

/// An interval with `rate` answered requests per second, each with 20 µs of host time.
fn loaded(rate: f64) -> ObservedInterval {
    ObservedInterval {
        answered: 2.0 * rate,
        batches: 0.2 * rate,
        host: Some(2.0 * rate * 20e-6),
        offered: rate,
        ..QUIET
    }
}

#[test]
fn a_calibrated_server_knows_its_capacity_before_the_first_request() {
    let mut estimator = Estimator::new();
    let estimate = estimator.update(&seen(1.0, 30), &CONDITIONS, &QUIET);
    assert!(estimate.capacity.feasible);
    // κ is less than 2 for such a model, and batches may be larger than 32: more than the 5093 of the reference.
    let rate = estimate.capacity.rate;
    assert!((5093.0..7000.0).contains(&rate), "{rate}");
    assert!(estimate.confidence < CONFIDENT, "the host is not known");
    assert!(estimate.in_flight > 0.0 && estimate.in_flight < rate * 0.02);
}

#[test]
fn a_well_known_capacity_follows_learning_slowly_and_requests_at_once() {
    let mut estimator = Estimator::new();
    let mut estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &loaded(4000.0));
    for _ in 0..10 {
        estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &loaded(4000.0));
    }
    assert!(estimate.confidence > CONFIDENT, "{estimate:?}");
    let before = estimate.capacity.rate;
    for _ in 0..30 {
        estimate = estimator.update(&seen(1.1, 1000), &CONDITIONS, &loaded(4000.0));
    }
    let within = estimate.capacity.rate / before;
    assert!((0.94..0.97).contains(&within), "a minute later: {within}");
    // More than the highest rate that is possible is never published.
    estimate = estimator.update(&seen(1.5, 1000), &CONDITIONS, &loaded(1000.0));
    assert!(estimate.capacity.rate <= estimate.capacity.rate_max);
    for _ in 0..30 * 15 {
        estimate = estimator.update(&seen(1.5, 1000), &CONDITIONS, &loaded(1000.0));
    }
    let in_the_end = estimate.capacity.rate / before;
    assert!(in_the_end < 0.75, "{in_the_end}");
    let long = Conditions {
        request_tokens: 100.0,
        ..CONDITIONS
    };
    let before = estimate.capacity.rate;
    let after = estimator.update(&seen(1.5, 1000), &long, &loaded(100.0));
    assert!(after.capacity.rate < before / 4.0);
}

#[test]
fn another_model_starts_a_new_estimate() {
    let mut estimator = Estimator::new();
    for _ in 0..10 {
        estimator.update(&seen(1.0, 1000), &CONDITIONS, &loaded(4000.0));
    }
    let other = Observation {
        generation: 1,
        ..seen(10.0, 30)
    };
    let estimate = estimator.update(&other, &CONDITIONS, &QUIET);
    assert!(estimate.capacity.rate < 800.0, "{estimate:?}");
}

#[test]
fn an_overloaded_server_learns_no_cost_from_its_refusals() {
    let mut estimator = Estimator::new();
    for _ in 0..10 {
        estimator.update(&seen(1.0, 1000), &CONDITIONS, &loaded(4000.0));
    }
    let before = estimator.update(&seen(1.0, 1000), &CONDITIONS, &loaded(4000.0));
    let refusing = ObservedInterval {
        host: Some(1.9),
        offered: 20_000.0,
        overload_share: 0.8,
        ..loaded(4000.0)
    };
    let mut after = before;
    for _ in 0..100 {
        after = estimator.update(&seen(1.0, 1000), &CONDITIONS, &refusing);
    }
    assert_eq!(after.learned.host, before.learned.host);
    let moved = after.capacity.rate / before.capacity.rate;
    assert!((0.95..1.05).contains(&moved), "{moved}");
    // Time outside queue and engine is missing from the objective, whatever the reason.
    let late = ObservedInterval {
        overhead: LatencySummary {
            count: 10_000,
            mean: 0.01,
            p99: 0.012,
        },
        ..refusing
    };
    for _ in 0..300 {
        after = estimator.update(&seen(1.0, 1000), &CONDITIONS, &late);
    }
    let moved = after.capacity.rate / before.capacity.rate;
    assert!(moved < 0.8, "{moved}");
}

/// While learning has not reached the published rate, the queue is that of the computed one.
#[test]
fn the_target_concurrency_does_not_jump_when_the_server_gets_slower() {
    let mut estimator = Estimator::new();
    let update = |estimator: &mut Estimator, factor| {
        estimator.update(&seen(factor, 1000), &CONDITIONS, &loaded(4000.0))
    };
    for _ in 0..20 {
        update(&mut estimator, 1.0);
    }
    let before = update(&mut estimator, 1.0);
    for factor in [1.3, 1.6, 2.0] {
        let slower = update(&mut estimator, factor);
        assert!(slower.in_flight < 1.5 * before.in_flight, "{slower:?}");
        assert!(slower.capacity.rate <= slower.capacity.rate_max);
    }
}

#[test]
fn an_infeasible_objective_is_reported_with_the_capacity_without_it() {
    let tight = Conditions {
        objective: Some(0.001),
        ..CONDITIONS
    };
    let estimate = Estimator::new().update(&seen(1.0, 30), &tight, &QUIET);
    assert!(!estimate.capacity.feasible);
    assert!(estimate.capacity.rate > 1000.0);
}

/// Bodies of half a megabyte, most of them refused: their cost counts at once, and only for them.
#[test]
fn large_bodies_count_by_their_bytes_even_if_refused() {
    let mut estimator = Estimator::new();
    for _ in 0..10 {
        estimator.update(&seen(1.0, 1000), &CONDITIONS, &loaded(4000.0));
    }
    let costly = Observation {
        byte: ByteCost {
            seconds: 20e-9,
            is_known: false,
        },
        ..seen(1.0, 1000)
    };
    let large = Conditions {
        request_bytes: 500e3,
        ..CONDITIONS
    };
    let refusing = ObservedInterval {
        overload_share: 0.6,
        large: 400.0 * 500e3,
        host: Some(400.0 * (20e-6 + 500e3 * 20e-9)),
        ..loaded(200.0)
    };
    // 10 ms of host time each, on four cores.
    let rate = estimator.update(&costly, &large, &refusing).capacity.rate;
    assert!((300.0..400.0).contains(&rate), "{rate}");
    let kept = ObservedInterval {
        overload_share: 0.0,
        ..refusing
    };
    for _ in 0..10 {
        estimator.update(&costly, &large, &kept);
    }
    let without = estimator.update(&costly, &CONDITIONS, &QUIET);
    assert!(
        without.capacity.rate > 4000.0,
        "other requests cost the same as before"
    );
}

/// A device does not need the cores. A limit of half of one says nothing about its batches.
#[test]
fn a_cpu_limit_does_not_slow_a_device() {
    let contention = |shares_cores| {
        let conditions = Conditions {
            shares_cores,
            cores: 0.5,
            ..CONDITIONS
        };
        let estimate = Estimator::new().update(&seen(1.0, 30), &conditions, &QUIET);
        estimate.learned.contention
    };
    assert_eq!((contention(false), contention(true)), (1.0, 2.0));
}

/// The cores are full, so nothing of the objective is left for queue and engine. That is no property of the objective, and
/// it is forgotten.
#[test]
fn overload_does_not_make_an_objective_infeasible() {
    let mut estimator = Estimator::new();
    let overhead = |count, p99| LatencySummary {
        count,
        mean: p99 / 2.0,
        p99,
    };
    let calm = ObservedInterval {
        overhead: overhead(10_000, 0.001),
        ..loaded(4000.0)
    };
    let mut estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &calm);
    for _ in 0..20 {
        estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &calm);
    }
    let before = estimate.capacity.rate;
    let full = ObservedInterval {
        overload_share: 0.5,
        overhead: overhead(10_000, 0.05),
        ..loaded(4000.0)
    };
    for _ in 0..100 {
        estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &full);
        assert!(estimate.capacity.feasible);
        assert!(estimate.capacity.rate < 1.05 * before, "{estimate:?}");
    }
    // However long it is, the more of it the less is published.
    let mut rates = Vec::new();
    for millis in [2.0, 4.0, 8.0, 15.5, 15.7, 17.0, 50.0] {
        let full = ObservedInterval {
            is_missed: true,
            overload_share: 0.0,
            overhead: overhead(10_000, millis / 1e3),
            ..loaded(4000.0)
        };
        let mut fresh = Estimator::new();
        for _ in 0..3 {
            fresh.update(&seen(1.0, 3), &CONDITIONS, &calm);
        }
        for _ in 0..3 {
            estimate = fresh.update(&seen(1.0, 3), &CONDITIONS, &full);
        }
        assert!(estimate.capacity.feasible, "{millis} ms");
        rates.push(estimate.capacity.rate);
    }
    assert!(rates.iter().rev().is_sorted(), "{rates:?}");
    let few = ObservedInterval {
        overhead: overhead(50, 0.001),
        ..loaded(1.0)
    };
    for _ in 0..300 {
        estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &few);
    }
    assert!(estimate.learned.overhead < 0.0011, "{estimate:?}");
}

/// Neighbours on the same cores stay when the model changes.
#[test]
fn another_model_is_slowed_down_as_the_one_before_it() {
    let conditions = Conditions {
        shares_cores: true,
        ..CONDITIONS
    };
    let mut estimator = Estimator::new();
    let time = Duration::from_secs(1);
    let slowed = ObservedInterval {
        threads: Some(ThreadTime {
            ran: time,
            waited: time,
        }),
        engine: EngineTime {
            elapsed: 2 * time,
            spent: time,
        },
        ..loaded(1000.0)
    };
    let mut estimate = estimator.update(&seen(1.0, 1000), &conditions, &slowed);
    for _ in 0..50 {
        estimate = estimator.update(&seen(1.0, 1000), &conditions, &slowed);
    }
    assert!(estimate.learned.contention > 1.9, "{estimate:?}");
    let other = Observation {
        generation: 1,
        ..seen(1.0, 30)
    };
    let estimate = estimator.update(&other, &conditions, &QUIET);
    assert!(estimate.learned.contention > 1.9, "{estimate:?}");
}

/// Texts that take longer outside the queue than the objective allows, at any load.
#[test]
fn an_objective_that_is_missed_without_load_is_infeasible() {
    let mut estimator = Estimator::new();
    let slow = ObservedInterval {
        is_missed: true,
        overhead: LatencySummary {
            count: 6000,
            mean: 0.02,
            p99: 0.025,
        },
        ..loaded(100.0)
    };
    let mut estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &slow);
    for _ in 0..30 {
        estimate = estimator.update(&seen(1.0, 1000), &CONDITIONS, &slow);
    }
    assert!(!estimate.capacity.feasible, "{estimate:?}");
}
