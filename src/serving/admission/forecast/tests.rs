//! Forecasts against a queue whose contents are known.

use prometheus::{IntCounter, IntGauge};

use super::*;
use crate::model::Checkpoint;
use crate::serving::queue::SlotLimits;

fn slots() -> Arc<Slots> {
    let depth = IntGauge::new("depth", "d").unwrap();
    let abandoned = IntCounter::new("abandoned", "a").unwrap();
    let limits = SlotLimits {
        slots: 10_000,
        lists: 10_000,
    };
    Slots::new(limits, depth, abandoned)
}

/// 1 ms per batch and 0.1 ms per token.
fn timing(objective: Option<Duration>) -> EngineTiming {
    let timing = EngineTiming::new(objective, 4096);
    for tokens in [10_u32, 100, 1000] {
        let took = 0.001 + 0.0001 * f64::from(tokens);
        timing
            .curve
            .observe(tokens as usize, Duration::from_secs_f64(took));
    }
    timing
}

fn forecast(slots: &Arc<Slots>, objective: Duration) -> Forecast {
    let timing = Arc::new(timing(Some(objective)));
    let tokenizer = Checkpoint::embedded().unwrap().tokenizer;
    Forecast::new(timing, Arc::clone(slots), &tokenizer)
}

fn time_left(remaining: Option<f64>) -> TimeLeft {
    TimeLeft {
        remaining,
        spent: 0.0,
    }
}

const OBJECTIVE: Duration = Duration::from_millis(100);

#[test]
fn an_idle_server_admits_everything() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let Feasibility::InTime(ExpectedLatency {
        seconds: expected, ..
    }) = forecast.assess(Class::List, 100_000, time_left(None))
    else {
        panic!("it was refused");
    };
    assert!(expected > 10.0, "{expected}");
}

#[test]
fn a_late_request_is_refused_with_its_lateness() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let waiting = slots.reserve(Class::Single, &[100; 8]).unwrap();
    // 800 waiting tokens and 10 of its own: 4 batches, 85 ms.
    let assessed = forecast.assess(Class::Single, 10, time_left(None));
    let Feasibility::InTime(ExpectedLatency {
        seconds: expected, ..
    }) = assessed
    else {
        panic!("{assessed:?}");
    };
    assert!((expected - 0.085).abs() < 0.001, "{expected}");
    let more = slots.reserve(Class::Single, &[200]).unwrap();
    let assessed = forecast.assess(Class::Single, 10, time_left(None));
    let Feasibility::TooLate { expected, late, .. } = assessed else {
        panic!("{assessed:?}");
    };
    assert!((expected - 0.106).abs() < 0.001, "{expected}");
    assert!((late - 0.016).abs() < 0.001, "{late}");
    assert!((forecast.drain_time().as_secs_f64() - 0.105).abs() < 0.001);
    drop(more);
    let soon = forecast.assess(Class::Single, 10, time_left(Some(0.05)));
    assert!(
        matches!(soon, Feasibility::TooLate { .. }),
        "its own deadline"
    );
    let unreachable = forecast.assess(Class::Single, 10, time_left(Some(0.0005)));
    assert!(
        matches!(unreachable, Feasibility::Unreachable { .. }),
        "{unreachable:?}"
    );
    drop(waiting);
}

/// A list of thousands delays a single text by no more than the single texts before it.
#[test]
fn the_other_class_gets_at_most_half() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let list = slots.reserve(Class::List, &[100; 100]).unwrap();
    let assessed = forecast.assess(Class::Single, 10, time_left(None));
    let Feasibility::InTime(ExpectedLatency {
        seconds: expected, ..
    }) = assessed
    else {
        panic!("{assessed:?}");
    };
    assert!(expected < 0.01, "{expected}");
    drop(list);
}

#[test]
fn an_objective_that_no_server_can_keep_is_stretched() {
    let slots = slots();
    let forecast = forecast(&slots, Duration::from_millis(1));
    let waiting = slots.reserve(Class::Single, &[10]).unwrap();
    let assessed = forecast.assess(Class::Single, 10, time_left(None));
    assert!(matches!(assessed, Feasibility::InTime(_)), "{assessed:?}");
    drop(waiting);
}

#[test]
fn frequent_misses_increase_the_slack() {
    let slack = Slack::new();
    for round in 0..10_000_u32 {
        // One of twenty is 20 ms late.
        let error = if round % 20 == 0 { 0.020 } else { 0.0 };
        slack.learn(error, 0.1, true);
    }
    let learned = slack.seconds();
    assert!((0.018..0.024).contains(&learned), "{learned}");
    for _ in 0..10_000 {
        slack.learn(-0.01, 0.1, false);
    }
    assert!(slack.seconds() < 0.001, "{}", slack.seconds());
}

/// A stall long ago says nothing about now, even if few requests have arrived since.
#[tokio::test(start_paused = true)]
async fn the_slack_decays_with_time() {
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
fn only_short_single_texts_are_representative() {
    let slots = slots();
    let forecast = forecast(&slots, OBJECTIVE);
    let is_representative = |class, tokens| match forecast.assess(class, tokens, time_left(None)) {
        Feasibility::InTime(expected) => expected.is_representative,
        late @ (Feasibility::TooLate { .. } | Feasibility::Unreachable { .. }) => {
            panic!("{late:?}")
        }
    };
    assert!(is_representative(Class::Single, 100));
    assert!(!is_representative(Class::List, 100));
    assert!(!is_representative(Class::Single, 400));
}

#[test]
fn tokens_per_byte_are_learned() {
    let forecast = forecast(&slots(), OBJECTIVE);
    assert_eq!(forecast.tokens_of(40), 12);
    assert_eq!(
        forecast.tokens_of(40_000),
        128,
        "the model's longest sequence"
    );
    for _ in 0..1000 {
        forecast.learn_tokens(30, 32);
    }
    let tokens = forecast.tokens_of(40);
    assert!((40..=43).contains(&tokens), "{tokens}");
}
