use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

const SIZE: f64 = 10.0;

const SERVER: Server = Server {
    size: SIZE,
    model: 1000.0 * SIZE,
    utilization: 0.8,
};

/// Half a second of a server that is asked `offered` requests per second, of which it answers `in_time` and `late`.
fn half_second(offered: f64, in_time: f64, late: f64) -> Outcomes {
    Outcomes {
        seconds: 0.5,
        in_time: in_time / 2.0,
        late: late / 2.0,
        unanswered: (offered - in_time - late).max(0.0) / 2.0,
        in_time_tokens: in_time / 2.0 * SIZE,
        late_tokens: late / 2.0 * SIZE,
        record_tokens: 0.0,
        offered_tokens: offered / 2.0 * SIZE,
    }
}

/// Looks at a server for `seconds`, of whose `offered` requests per second `in_time` and `late` are answered.
fn serve(missed: &mut MissedObjective, (offered, in_time, late): (f64, f64, f64), seconds: f64) {
    for _ in 0..(2.0 * seconds) as usize {
        missed.look(half_second(offered, in_time, late), SERVER);
    }
}

/// A server that answers at most `real` requests per second in time, and refuses the others.
fn overload(missed: &mut MissedObjective, offered: f64, real: f64, seconds: f64) {
    serve(missed, (offered, offered.min(real), 0.0), seconds);
}

fn rate(missed: &MissedObjective) -> Option<f64> {
    missed.bounds().most.map(|rate| rate / SIZE)
}

fn close(missed: &MissedObjective, expected: f64) {
    let found = rate(missed).unwrap();
    assert!(
        (found / expected - 1.0).abs() < 0.03,
        "{found}, not {expected}"
    );
}

#[test]
fn what_is_answered_in_time_bounds_the_capacity_within_seconds() {
    let mut missed = MissedObjective::new();
    overload(&mut missed, 400.0, 500.0, 60.0);
    assert_eq!((rate(&missed), missed.is_missed()), (None, false));
    overload(&mut missed, 800.0, 500.0, 2.0);
    assert_eq!(rate(&missed), None, "two seconds prove nothing");
    overload(&mut missed, 800.0, 500.0, 1.5);
    assert!(missed.is_missed());
    close(&missed, 500.0);
    // The machine becomes slower still.
    overload(&mut missed, 800.0, 200.0, 25.0);
    close(&missed, 200.0);
}

#[test]
fn the_bound_holds_for_a_while_and_is_then_eased() {
    let mut missed = MissedObjective::new();
    overload(&mut missed, 800.0, 500.0, 10.0);
    overload(&mut missed, 400.0, 500.0, 14.0);
    assert!(!missed.is_missed());
    close(&missed, 500.0);
    overload(&mut missed, 400.0, 500.0, 30.0);
    let eased = rate(&missed).unwrap();
    assert!((600.0..900.0).contains(&eased), "{eased}");
    // More is answered in time, so more is possible.
    overload(&mut missed, 900.0, 1000.0, 7.0);
    assert!(rate(&missed).unwrap() >= 870.0);
    overload(&mut missed, 400.0, 500.0, 120.0);
    assert_eq!(rate(&missed), None);
    // It was eased too soon.
    overload(&mut missed, 800.0, 500.0, 20.0);
    overload(&mut missed, 400.0, 500.0, 29.0);
    close(&missed, 500.0);
}

/// A stall every half hour does not make a bound that lasts.
#[test]
fn rare_misses_do_not_prolong_each_other() {
    let mut missed = MissedObjective::new();
    for _ in 0..20 {
        overload(&mut missed, 200.0, 20.0, 5.0);
        overload(&mut missed, 200.0, 1000.0, 300.0);
        assert_eq!(rate(&missed), None);
        overload(&mut missed, 200.0, 1000.0, 1500.0);
    }
}

#[test]
fn a_stall_and_a_few_misses_prove_nothing() {
    let mut missed = MissedObjective::new();
    for _ in 0..20 {
        overload(&mut missed, 100.0, 1000.0, 8.0);
        overload(&mut missed, 100.0, 0.0, 1.5);
        assert_eq!(rate(&missed), None);
    }
    // One of a hundred is what the objective allows.
    overload(&mut missed, 100.0, 99.0, 60.0);
    assert_eq!(rate(&missed), None);
    // At two a second, the fifth miss is no chance.
    let mut missed = MissedObjective::new();
    overload(&mut missed, 2.0, 0.0, 2.0);
    assert_eq!(rate(&missed), None);
    overload(&mut missed, 2.0, 0.0, 2.0);
    assert_eq!(rate(&missed), Some(0.0));
}

#[test]
fn misses_in_every_other_second_count() {
    let mut missed = MissedObjective::new();
    for _ in 0..5 {
        overload(&mut missed, 400.0, 200.0, 1.0);
        overload(&mut missed, 0.0, 200.0, 1.0);
    }
    // On average, and in the seconds in which they come.
    assert!((99.0..=201.0).contains(&rate(&missed).unwrap()));
}

/// If most answers are late, what helps is not known.
#[test]
fn late_answers_are_worth_something() {
    let mut missed = MissedObjective::new();
    serve(&mut missed, (100.0, 0.0, 100.0), 10.0);
    close(&missed, 66.7);
    let mut missed = MissedObjective::new();
    serve(&mut missed, (1000.0, 200.0, 50.0), 10.0);
    close(&missed, 200.0);
}

/// A fleet whose requests miss the objective by `share` whatever the load, sized by the sum of what its replicas publish.
/// Returns the numbers of replicas, one for each scaling round of 15 s. Arrivals are regular, or Poisson by `random`.
fn fleet(
    (load, capacity, share): (f64, f64, f64),
    replicas: usize,
    mut random: Option<ChaCha8Rng>,
) -> Vec<usize> {
    let mut draw = |mean: f64| match &mut random {
        None => mean,
        Some(random) => {
            let (mut time, mut count) = (0.0, 0.0);
            loop {
                time -= (1.0 - random.random::<f64>()).ln();
                if time > mean {
                    break count;
                }
                count += 1.0;
            }
        }
    };
    let mut fleet: Vec<MissedObjective> = (0..replicas).map(|_| MissedObjective::new()).collect();
    let mut counts = Vec::new();
    for _ in 0..80 {
        let each = load / fleet.len() as f64;
        let mut sum = 0.0;
        for missed in &mut fleet {
            for _ in 0..30 {
                let answered = each.min(capacity);
                let late = 2.0 * draw(share * answered / 2.0);
                let in_time = 2.0 * draw((1.0 - share) * answered / 2.0);
                let offered = in_time + late + each - answered;
                let server = Server {
                    model: capacity * SIZE,
                    ..SERVER
                };
                missed.look(half_second(offered, in_time, late), server);
            }
            let bound = rate(missed).map_or(capacity, |bound| bound.min(capacity));
            sum += each / (0.8 * bound);
        }
        let wanted = sum.ceil().max(1.0) as usize;
        if (sum / fleet.len() as f64 - 1.0).abs() > 0.1 {
            fleet.resize_with(wanted, MissedObjective::new);
        }
        counts.push(fleet.len());
    }
    counts
}

/// More replicas do not help against texts that are too long for the objective, and must not call for ever more.
#[test]
fn misses_that_are_not_the_loads_fault_do_not_run_away() {
    for share in [0.02, 0.05, 0.2, 0.5] {
        for (load, replicas) in [(400.0, 1), (3000.0, 4), (20_000.0, 30)] {
            let counts = fleet((load, 1000.0, share), replicas, None);
            let most = *counts.iter().max().unwrap() as f64;
            // By the share of the first replicas. Those that join ask for theirs.
            let beyond = if share < 0.3 { 2.2 } else { 4.0 };
            let right = replicas as f64 / (0.8 * (1.0 - share).max(SERVER.answers_worth()));
            assert!(most <= beyond * right + 2.0, "{share} {right}: {counts:?}");
            assert_eq!(counts[60], counts[79], "{share}: {counts:?}");
        }
    }
}

/// The same where each replica answers tens of requests per second, so that shares vary by chance.
#[test]
fn few_misses_by_chance_do_not_run_away() {
    for share in [0.05, 0.1, 0.2] {
        for seed in 0..5 {
            let random = ChaCha8Rng::seed_from_u64(seed);
            let counts = fleet((60.0, 20.0, share), 4, Some(random));
            let most = *counts.iter().max().unwrap();
            assert!(most <= 9, "{share}, {seed}: {counts:?}");
        }
    }
}

#[test]
fn an_overloaded_fleet_gets_what_it_needs() {
    let counts = fleet((20_000.0, 1000.0, 0.0), 3, None);
    assert!((25..=32).contains(&counts[79]), "{counts:?}");
    assert!(counts.iter().all(|count| *count <= 40), "{counts:?}");
}

#[test]
fn a_new_reason_lowers_the_bound_at_less_load_too() {
    let mut missed = MissedObjective::new();
    serve(&mut missed, (800.0, 760.0, 40.0), 20.0);
    close(&missed, 760.0);
    serve(&mut missed, (400.0, 380.0, 20.0), 20.0);
    close(&missed, 760.0);
    // Neighbours on the same cores: not the same twentieth.
    overload(&mut missed, 400.0, 100.0, 30.0);
    close(&missed, 100.0);
}

#[test]
fn what_keeps_the_objective_is_possible() {
    let mut missed = MissedObjective::new();
    overload(&mut missed, 400.0, 500.0, 60.0);
    let least = missed.bounds().least / SIZE;
    assert!((380.0..=400.0).contains(&least), "{least}");
    // The rate that would keep it is not known now.
    overload(&mut missed, 800.0, 500.0, 20.0);
    assert_eq!(missed.bounds().least, 0.0);
    let mut missed = MissedObjective::new();
    overload(&mut missed, 400.0, 500.0, 10.0);
    assert_eq!(missed.bounds().least, 0.0, "not for long enough");
}

/// Half of the last six seconds were good.
#[test]
fn a_stall_of_three_seconds_costs_half() {
    let mut missed = MissedObjective::new();
    overload(&mut missed, 800.0, 1000.0, 20.0);
    overload(&mut missed, 800.0, 0.0, 3.0);
    assert!(rate(&missed).unwrap() >= 350.0, "{:?}", rate(&missed));
    // However long it lasts, one look is one look.
    let mut missed = MissedObjective::new();
    overload(&mut missed, 800.0, 1000.0, 20.0);
    let long = Outcomes {
        seconds: 5.0,
        ..half_second(8000.0, 0.0, 0.0)
    };
    missed.look(long, SERVER);
    assert_eq!(rate(&missed), None);
}

/// What waits in a log, and what is still being answered, is no answer.
#[test]
fn what_is_offered_is_not_thereby_possible() {
    let mut missed = MissedObjective::new();
    for _ in 0..200 {
        let outcomes = Outcomes {
            offered_tokens: 5000.0 * SIZE,
            ..half_second(1000.0, 1000.0, 0.0)
        };
        missed.look(outcomes, SERVER);
    }
    assert_eq!(rate(&missed), None);
    let least = missed.bounds().least / SIZE;
    assert!((990.0..=1000.0).contains(&least), "{least}");
}

/// Lists are refused, single texts are not.
#[test]
fn refused_lists_are_worth_their_tokens() {
    let mut missed = MissedObjective::new();
    for _ in 0..20 {
        let outcomes = Outcomes {
            offered_tokens: (1600.0 + 5120.0) / 2.0,
            in_time_tokens: 1600.0 / 2.0,
            ..half_second(110.0, 100.0, 0.0)
        };
        let server = Server {
            size: 61.0,
            ..SERVER
        };
        missed.look(outcomes, server);
    }
    let most = missed.bounds().most.unwrap();
    assert!((most / 1600.0 - 1.0).abs() < 0.03, "{most}");
}

/// A fleet of servers of 1000 short requests per second, one in twenty of which is late whatever the load, while requests
/// double in size and halve again, and models are reloaded. Each time it gets what it asks for.
#[test]
fn other_sizes_and_models_do_not_run_away() {
    let mut fleet: Vec<MissedObjective> = (0..2).map(|_| MissedObjective::new()).collect();
    for round in 0..12 {
        let (size, load) = if round % 2 == 0 {
            (SIZE, 1200.0)
        } else {
            (2.0 * SIZE, 600.0)
        };
        let server = Server { size, ..SERVER };
        let each = load / fleet.len() as f64;
        let factor = size / SIZE;
        let found = half_second(each, 0.95 * each, 0.05 * each);
        let found = Outcomes {
            in_time_tokens: factor * found.in_time_tokens,
            late_tokens: factor * found.late_tokens,
            offered_tokens: factor * found.offered_tokens,
            ..found
        };
        let mut sum = 0.0;
        for missed in &mut fleet {
            if round % 3 == 2 {
                missed.change_model();
            }
            for _ in 0..60 {
                missed.look(found, server);
            }
            let most = missed.bounds().most.unwrap_or(f64::INFINITY);
            sum += each * size / (0.8 * most.min(server.model));
        }
        let wanted = sum.ceil().max(fleet.len() as f64) as usize;
        fleet.resize_with(wanted, MissedObjective::new);
    }
    assert!(fleet.len() <= 6, "{}", fleet.len());
}

/// The lower the target utilization, the more replicas each asks for, and the less may be taken from what is answered.
#[test]
fn answers_are_worth_more_at_a_lower_target_utilization() {
    for utilization in [1.0, 0.8, 0.5, 0.2] {
        let server = Server {
            utilization,
            ..SERVER
        };
        assert!(utilization * server.answers_worth() > 0.52 || server.answers_worth() == 1.0);
        let mut missed = MissedObjective::new();
        for _ in 0..20 {
            missed.look(half_second(100.0, 0.0, 100.0), server);
        }
        let most = rate(&missed).unwrap();
        assert!(
            (most / 100.0 - server.answers_worth()).abs() < 0.01,
            "{utilization}: {most}"
        );
    }
}

/// Nobody waits for a record, so that it is read in time says nothing about requests.
#[test]
fn records_are_work_but_not_in_time() {
    let mut missed = MissedObjective::new();
    for _ in 0..60 {
        let outcomes = Outcomes {
            record_tokens: 1000.0 * SIZE,
            ..half_second(15.0, 0.0, 0.0)
        };
        missed.look(outcomes, SERVER);
    }
    close(&missed, 2000.0);
    let mut missed = MissedObjective::new();
    for _ in 0..60 {
        let outcomes = Outcomes {
            record_tokens: 1000.0 * SIZE,
            ..half_second(0.0, 0.0, 0.0)
        };
        missed.look(outcomes, SERVER);
    }
    assert_eq!((rate(&missed), missed.bounds().least), (None, 0.0));
}

/// After a reload, less load is refused than before it, but it is refused.
#[test]
fn what_another_model_refuses_bounds_it() {
    let mut missed = MissedObjective::new();
    overload(&mut missed, 800.0, 480.0, 10.0);
    missed.change_model();
    assert_eq!((rate(&missed), missed.is_missed()), (None, false));
    overload(&mut missed, 600.0, 420.0, 10.0);
    close(&missed, 420.0);
}
