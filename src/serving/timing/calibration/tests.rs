use super::*;
use crate::engine::Logits;
use crate::serving::timing::curve::ServiceCurve;

/// An engine whose batches take a fixed time, and a time per token.
#[derive(Debug)]
struct TimedEngine {
    setup: Duration,
    token: Duration,
    seen: Vec<usize>,
}

impl Engine for TimedEngine {
    fn description(&self) -> String {
        "timed".to_owned()
    }

    // It sleeps, so elapsed time is its cost.
    fn is_on_device(&self) -> bool {
        true
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        self.seen.push(batch.tokens());
        std::thread::sleep(self.setup + self.token * batch.tokens() as u32);
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        Ok(Logits::new(vec![0.0], 1))
    }
}

fn engine(setup_ms: u64, token_us: u64) -> TimedEngine {
    TimedEngine {
        setup: Duration::from_millis(setup_ms),
        token: Duration::from_micros(token_us),
        seen: Vec::new(),
    }
}

/// A profile of [`TimedEngine`] with the embedded model, whose times are `factor` times too long.
fn prior(factor: f64) -> Prior {
    let batch = |texts: usize| {
        let took = factor * (1e-3 + 10e-6 * 16.0 * texts as f64);
        PriorBatch {
            texts,
            tokens: 16,
            took,
            spent: took,
            quartiles: Quartiles {
                first: took,
                third: took,
            },
        }
    };
    Prior {
        name: "profile.json".to_owned(),
        model: Checkpoint::embedded().unwrap().digest().unwrap(),
        engine: "timed".to_owned(),
        batches: [1, 4, 16].map(batch).to_vec(),
    }
}

/// The token counts of the batches that ran, and the curve.
fn initialized(
    mut engine: TimedEngine,
    prior: Option<&Prior>,
    calibrate: bool,
) -> (Vec<usize>, ServiceCurve) {
    let checkpoint = Checkpoint::embedded().unwrap();
    let timing = EngineTiming::new(None, 4096);
    let source = CurveSource { prior, calibrate };
    initialize(&mut engine, &checkpoint, source, &timing).unwrap();
    engine.seen.dedup();
    (engine.seen, timing.curve)
}

#[test]
fn a_slow_model_is_measured_with_two_sizes() {
    let (seen, curve) = initialized(engine(0, 10), None, true);
    assert_eq!(seen, [16, 64, 256]);
    assert_eq!(curve.batches(), 3);
    // 45 ms for 16 tokens: four times as many do not fit, twice as many do.
    let (seen, curve) = initialized(engine(13, 2000), None, true);
    assert_eq!(seen, [16, 32]);
    assert_eq!(curve.batches(), 2);
    assert!(curve.line().token > 0.0);
    let (seen, _) = initialized(engine(500, 0), None, true);
    assert_eq!(seen, [16], "too slow for two");
    assert!(initialized(engine(0, 10), None, false).0.is_empty());
}

#[test]
fn an_unchecked_profile_is_used_as_it_is() {
    let (seen, curve) = initialized(engine(0, 0), Some(&prior(3.0)), false);
    assert!(seen.is_empty());
    let line = curve.line();
    assert!((line.setup - 3e-3).abs() < 1e-9 && (line.token - 30e-6).abs() < 1e-12);
    assert!(curve.error() < 1e-9 && curve.batches() == 3);
}

#[test]
fn a_profile_of_another_speed_model_or_engine_is_not_used() {
    let slow = prior(1e-3);
    let (seen, curve) = initialized(engine(1, 10), Some(&slow), true);
    assert_eq!(seen[0], 16, "checked, and does not hold");
    assert!(
        curve.line().setup > 0.5e-3,
        "and measured: {:?}",
        curve.line()
    );
    for other in [
        Prior {
            model: "0".repeat(64),
            ..slow.clone()
        },
        Prior {
            engine: "another".to_owned(),
            ..slow
        },
    ] {
        let (seen, curve) = initialized(engine(0, 0), Some(&other.clone()), false);
        assert!(seen.is_empty() && curve.batches() == 0);
        let (seen, _) = initialized(engine(0, 10), Some(&other), true);
        assert_eq!(seen, [16, 64, 256], "measured as without a profile");
    }
}

#[test]
fn a_mismatch_says_what_differs() {
    let checkpoint = Checkpoint::embedded().unwrap();
    let mut engine = engine(1, 10);
    let why = mismatch(&prior(100.0), &mut engine, &checkpoint, true).unwrap();
    let why = why.unwrap();
    assert!(why.contains("1 texts of 16 tokens took"), "{why}");
    let other = Prior {
        model: "ab".repeat(32),
        ..prior(1.0)
    };
    let why = mismatch(&other, &mut engine, &checkpoint, true).unwrap();
    assert!(why.unwrap().contains("another model (abababababab"));
}
