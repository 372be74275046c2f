//! Forecasts against a queue whose contents are known.

use prometheus::{IntCounter, IntGauge};

use super::*;
use crate::serving::slots::Room;

fn slots() -> Arc<Slots> {
    let depth = IntGauge::new("depth", "d").unwrap();
    let abandoned = IntCounter::new("abandoned", "a").unwrap();
    let room = Room {
        slots: 10_000,
        lists: 10_000,
    };
    Slots::new(room, depth, abandoned)
}

/// 1 ms a batch and 0.1 ms a token.
fn forecast(slots: &Arc<Slots>, objective: Duration) -> Forecast {
    let forecast = Forecast::new(Arc::clone(slots), objective, 4096);
    for tokens in [10_u32, 100, 1000] {
        let took = 0.001 + 0.0001 * f64::from(tokens);
        forecast
            .curve
            .observe(tokens as usize, Duration::from_secs_f64(took));
    }
    forecast
}

const OBJECTIVE: Duration = Duration::from_millis(100);

#[test]
fn a_batch_takes_a_quarter_of_the_objective() {
    let slots = slots();
    let tokens = forecast(&slots, OBJECTIVE).batch_tokens();
    assert!((239..=241).contains(&tokens), "{tokens}");
    assert_eq!(forecast(&slots, Duration::ZERO).batch_tokens(), 4096);
    let limited = forecast(&slots, OBJECTIVE);
    limited.limit_batch(100);
    assert_eq!(limited.batch_tokens(), 100);
}

#[test]
fn an_idle_server_lets_everything_in() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let Verdict::InTime(Expected {
        seconds: expected, ..
    }) = forecast.judge(Class::List, 100_000, (None, 0.0))
    else {
        panic!("it was refused");
    };
    assert!(expected > 10.0, "{expected}");
}

#[test]
fn what_would_come_too_late_is_refused_with_the_time_it_would_take_to_drain() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let waiting = slots.reserve(Class::Single, &[100; 8]).unwrap();
    // 800 tokens and 10 of its own: 4 batches, 85 ms.
    let judged = forecast.judge(Class::Single, 10, (None, 0.0));
    let Verdict::InTime(Expected {
        seconds: expected, ..
    }) = judged
    else {
        panic!("{judged:?}");
    };
    assert!((expected - 0.085).abs() < 0.001, "{expected}");
    let more = slots.reserve(Class::Single, &[200]).unwrap();
    let judged = forecast.judge(Class::Single, 10, (None, 0.0));
    let Verdict::TooLate { expected, late } = judged else {
        panic!("{judged:?}");
    };
    assert!((expected - 0.106).abs() < 0.001, "{expected}");
    assert!((late - 0.016).abs() < 0.001, "{late}");
    assert!((forecast.drain_time().as_secs_f64() - 0.105).abs() < 0.001);
    drop(more);
    let soon = forecast.judge(Class::Single, 10, (Some(0.05), 0.0));
    assert!(matches!(soon, Verdict::TooLate { .. }), "its own deadline");
    let never = forecast.judge(Class::Single, 10, (Some(0.0005), 0.0));
    assert!(matches!(never, Verdict::Never { .. }), "{never:?}");
    drop(waiting);
}

/// A list of thousands delays a single text by no more than the single texts before it.
#[test]
fn the_other_class_gets_no_more_than_its_half() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let list = slots.reserve(Class::List, &[100; 100]).unwrap();
    let judged = forecast.judge(Class::Single, 10, (None, 0.0));
    let Verdict::InTime(Expected {
        seconds: expected, ..
    }) = judged
    else {
        panic!("{judged:?}");
    };
    assert!(expected < 0.01, "{expected}");
    drop(list);
}

#[test]
fn an_objective_that_no_server_can_keep_is_stretched() {
    let slots = slots();
    let forecast = forecast(&slots, Duration::from_millis(1));
    let waiting = slots.reserve(Class::Single, &[10]).unwrap();
    let judged = forecast.judge(Class::Single, 10, (None, 0.0));
    assert!(matches!(judged, Verdict::InTime(_)), "{judged:?}");
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_waited_for_and_what_is_late_is_expected_to_stay_late() {
    let busy = Busy::new();
    let start = Instant::now();
    let left = |ms: u64| (busy.left(start + Duration::from_millis(ms)) * 1e3).round();
    assert_eq!(left(0), 0.0);
    busy.add(start, 0.010);
    assert_eq!((left(0), left(4), left(10)), (10.0, 6.0, 0.0));
    assert_eq!((left(15), left(40)), (5.0, 30.0));
    busy.add(start, 0.010);
    assert_eq!(left(4), 16.0);
    busy.restart(start, 0.010);
    assert_eq!(left(4), 6.0);
    busy.clear();
    assert_eq!(left(4), 0.0);
}

#[test]
fn forecasts_that_are_missed_too_often_make_the_next_ones_careful() {
    let slack = Slack::new();
    for round in 0..10_000_u32 {
        // One of twenty is 20 ms late.
        let error = if round % 20 == 0 { 0.020 } else { 0.0 };
        slack.learn(error, 0.1, true);
    }
    let learnt = slack.seconds();
    assert!((0.018..0.024).contains(&learnt), "{learnt}");
    for _ in 0..10_000 {
        slack.learn(-0.01, 0.1, false);
    }
    assert!(slack.seconds() < 0.001, "{}", slack.seconds());
}

/// A stall long ago says nothing about now, however few requests have come since.
#[tokio::test(start_paused = true)]
async fn what_was_learnt_from_misses_is_forgotten_with_time() {
    let slack = Slack::new();
    for _ in 0..100 {
        slack.learn(1.0, 0.1, true);
    }
    assert!(slack.seconds() > 0.049, "{}", slack.seconds());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(
        (slack.seconds() - 0.0125).abs() < 0.001,
        "{}",
        slack.seconds()
    );
}

/// Lists are delayed by single texts that come later, and long texts by their own length.
#[test]
fn only_what_the_objective_is_for_teaches() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let teaches = |class, tokens| match forecast.judge(class, tokens, (None, 0.0)) {
        Verdict::InTime(expected) => expected.teaches,
        late @ (Verdict::TooLate { .. } | Verdict::Never { .. }) => panic!("{late:?}"),
    };
    assert!(teaches(Class::Single, 100));
    assert!(!teaches(Class::List, 100));
    assert!(!teaches(Class::Single, 400));
}

#[test]
fn the_length_of_texts_is_learnt() {
    let forecast = Forecast::new(slots(), OBJECTIVE, 4096);
    assert_eq!(forecast.tokens_of(40, 512), 12);
    assert_eq!(forecast.tokens_of(40_000, 512), 512);
    for _ in 0..1000 {
        forecast.learn_tokens(30, 32);
    }
    let tokens = forecast.tokens_of(40, 512);
    assert!((40..=43).contains(&tokens), "{tokens}");
}
