use super::super::retries::Identity;
use super::*;

fn named(name: &str) -> Attempt {
    Attempt {
        identity: Some(Identity::of([name.as_bytes()])),
        is_retry: false,
    }
}

fn overloaded() -> Refusal {
    Refusal::Concurrency {
        max: 1,
        retry_after: Duration::ZERO,
    }
}

fn arrive_and_be_refused(arrivals: &Arrivals, attempt: Attempt, refusal: &Refusal) {
    let counts = arrivals.arrive(attempt);
    arrivals.refuse(refusal, attempt, counts);
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_refused_request_does_not_count_again() {
    let arrivals = Arrivals::new(None);
    for _ in 0..5 {
        arrive_and_be_refused(&arrivals, named("a"), &overloaded());
    }
    assert!(arrivals.arrive(named("b")));
    let counts = arrivals.counts();
    assert_eq!((counts.offered, counts.shed, counts.overloaded), (2, 5, 5));
    assert_eq!(counts.unanswered, 1, "one request was not answered");
    tokio::time::advance(Duration::from_secs(12 * 60)).await;
    assert!(arrivals.arrive(named("a")), "it is forgotten after a while");
    let again = Attempt {
        is_retry: true,
        ..named("c")
    };
    assert!(!arrivals.arrive(again), "the request says so itself");
    arrivals.abandon(named("d"));
    assert!(!arrivals.arrive(named("d")), "its client had left");
}

/// A request refused once because of the load, then repeatedly because of itself, discounts nothing.
#[test]
fn client_errors_of_a_retry_do_not_reduce_the_load_of_others() {
    let arrivals = Arrivals::new(None);
    arrive_and_be_refused(&arrivals, named("a"), &Refusal::Deadline);
    for _ in 0..30 {
        arrive_and_be_refused(&arrivals, named("a"), &Refusal::Empty);
    }
    let counts = arrivals.counts();
    assert_eq!((counts.offered, counts.discounted), (1, 0));
}

#[test]
fn an_identity_shared_by_all_requests_hides_few_of_them() {
    let arrivals = Arrivals::new(None);
    for _ in 0..1000 {
        arrive_and_be_refused(&arrivals, named("the same"), &overloaded());
    }
    assert!(arrivals.counts().offered > 900);
}

#[test]
fn requests_without_an_identity_all_count() {
    let arrivals = Arrivals::new(None);
    for _ in 0..10 {
        arrive_and_be_refused(&arrivals, Attempt::default(), &overloaded());
    }
    assert_eq!(arrivals.counts().offered, 10);
}

#[test]
fn refusals_are_counted_by_who_is_to_blame() {
    let arrivals = Arrivals::new(None);
    let refusals = [
        overloaded(),
        Refusal::Loading,
        Refusal::Empty,
        Refusal::Engine("broken".to_owned()),
    ];
    for refusal in refusals {
        arrive_and_be_refused(&arrivals, Attempt::default(), &refusal);
    }
    let counts = arrivals.counts();
    assert_eq!((counts.shed, counts.overloaded), (2, 1));
    assert_eq!((counts.discounted, counts.failed), (1, 1));
}

#[test]
fn answers_beyond_the_objective_are_late() {
    let arrivals = Arrivals::new(Some(Duration::from_millis(10)));
    for millis in [1, 10, 11, 500] {
        arrivals.answer(
            millis as usize,
            Duration::from_millis(millis),
            Duration::ZERO,
        );
    }
    let counts = arrivals.counts();
    assert_eq!((counts.answered, counts.late), (4, 2));
    assert_eq!((counts.answered_tokens, counts.late_tokens), (522, 511));
}

#[test]
fn a_request_that_misses_only_its_own_deadline_misses_no_objective() {
    let arrivals = Arrivals::new(Some(Duration::from_millis(100)));
    for keeps_objective in [true, false, true] {
        let refusal = Refusal::Overloaded {
            expected: Duration::from_millis(50),
            retry_after: Duration::ZERO,
            keeps_objective,
        };
        arrive_and_be_refused(&arrivals, Attempt::default(), &refusal);
    }
    let counts = arrivals.counts();
    assert_eq!((counts.overloaded, counts.unanswered), (3, 1));
}

/// With an objective, a deadline that passed is the client's own.
#[test]
fn without_an_objective_a_deadline_that_passed_is_a_miss() {
    for (objective, unanswered) in [(None, 1), (Some(Duration::from_millis(100)), 0)] {
        let arrivals = Arrivals::new(objective);
        arrivals.expire();
        assert_eq!(arrivals.counts().unanswered, unanswered);
    }
}
