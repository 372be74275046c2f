//! Measuring the times of batches, in alternation.

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::grid::{Grid, Shape};
use super::point::{Point, SkipReason, Skipped};
use crate::engine::{Engine, EngineError, RaggedBatch};
use crate::model::Tokenizer;
use crate::serving::{BatchSample, BatchTime, ServiceLine, batch_of, timed};

/// Runs that a shape should have at least, including the warm-up. Shapes without time for them are left out.
const RUNS: f64 = 4.0;

/// Time for which a short batch is repeated in each round.
const SLICE: Duration = Duration::from_millis(1);

/// Seed of the order of batches in each round, the same for every measurement.
const ORDER_SEED: u64 = 1;

/// A batch with its measured times.
struct MeasuredBatch {
    shape: Shape,
    batch: RaggedBatch,
    times: Vec<BatchTime>,
}

/// Measures the shapes of `grid` within about `duration`, and returns those it left out as well. `tick` is
/// called with the elapsed time after each batch.
///
/// Every batch runs in every round, so that a busy moment of the machine does not affect one of them alone.
///
/// # Errors
/// An error of the engine. Batches that the device has no memory for are left out instead.
pub fn measure(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    grid: Grid,
    duration: Duration,
    mut tick: impl FnMut(Duration),
) -> Result<(Vec<Point>, Vec<Skipped>), EngineError> {
    let start = Instant::now();
    let (mut batches, skipped) = warm_up(engine, tokenizer, grid, duration)?;
    let mut orders = ChaCha8Rng::seed_from_u64(ORDER_SEED);
    for round in 0_usize.. {
        if batches.is_empty() || (round > 0 && start.elapsed() >= duration) {
            break;
        }
        // Another order in each round, so that no batch always follows the same one.
        batches.shuffle(&mut orders);
        for measured in &mut batches {
            let slice = Instant::now();
            while measured.times.len() <= round || slice.elapsed() < SLICE {
                let time = timed(engine, &measured.batch)?;
                measured.times.push(time);
            }
            tick(start.elapsed());
            if round > 0 && start.elapsed() >= duration {
                break;
            }
        }
    }
    // With several threads or a device, the CPU time of this thread is not that of the batch.
    let is_alone = engine.computes_alone();
    let mut points: Vec<Point> = batches.iter().map(|b| b.point(is_alone)).collect();
    points.sort_by_key(|point| (point.shape.tokens, point.shape.texts));
    Ok((points, skipped))
}

/// Runs every batch once, except those that would take too long to be repeated.
fn warm_up(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    grid: Grid,
    duration: Duration,
) -> Result<(Vec<MeasuredBatch>, Vec<Skipped>), EngineError> {
    let (mut batches, mut skipped) = (Vec::new(), Vec::new());
    let mut known: Vec<BatchSample> = Vec::new();
    let mut round = 0.0;
    for asked in grid.within(engine.largest()).shapes() {
        let batch = batch_of(tokenizer, asked.tokens, asked.texts);
        let shape = Shape {
            texts: asked.texts,
            tokens: batch.tokens() / asked.texts,
        };
        let total = shape.total() as f64;
        let expected = match known.len() {
            0 | 1 => 0.0,
            _ => ServiceLine::through(known.iter().copied()).seconds(1.0, total),
        };
        if RUNS * (round + expected) > duration.as_secs_f64() && known.len() > 1 {
            skipped.push(Skipped {
                shape,
                reason: SkipReason::Time,
                seconds_expected: expected,
            });
            continue;
        }
        match timed(engine, &batch) {
            Ok(BatchTime { took, .. }) => {
                let seconds = took.as_secs_f64();
                round += seconds;
                known.push(BatchSample {
                    tokens: total,
                    seconds,
                });
                let times = Vec::new();
                batches.push(MeasuredBatch {
                    shape,
                    batch,
                    times,
                });
            }
            Err(EngineError::OutOfMemory { .. }) => skipped.push(Skipped {
                shape,
                reason: SkipReason::Memory,
                seconds_expected: expected,
            }),
            Err(error) => return Err(error),
        }
    }
    Ok((batches, skipped))
}

impl MeasuredBatch {
    fn point(&self, is_alone: bool) -> Point {
        let elapsed = sorted(self.times.iter().map(|time| time.took));
        let cpu = sorted(self.times.iter().map(|time| time.spent));
        Point {
            shape: self.shape,
            seconds_median: quantile(&elapsed, 0.5),
            seconds_q1: quantile(&elapsed, 0.25),
            seconds_q3: quantile(&elapsed, 0.75),
            cpu_seconds_median: is_alone.then(|| quantile(&cpu, 0.5)),
            repeats: elapsed.len(),
        }
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut seconds: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// The quantile `share` of sorted values; 0 without values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Logits;
    use crate::model::Checkpoint;

    /// An engine that takes a fixed time for each token and has memory for a number of tokens.
    #[derive(Debug)]
    struct SlowEngine {
        token: Duration,
        memory: usize,
        is_alone: bool,
    }

    impl Engine for SlowEngine {
        fn computes_alone(&self) -> bool {
            self.is_alone
        }

        fn description(&self) -> String {
            "slow".to_owned()
        }

        fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
            let tokens = batch.tokens();
            if tokens > self.memory {
                return Err(EngineError::OutOfMemory { tokens });
            }
            std::thread::sleep(self.token * tokens as u32);
            Ok(())
        }

        fn collect(&mut self) -> Result<Logits, EngineError> {
            Ok(Logits::new(vec![0.0], 1))
        }
    }

    fn measured(token_us: u64, memory: usize) -> (Vec<Point>, Vec<Skipped>) {
        let checkpoint = Checkpoint::embedded().unwrap();
        let mut engine = SlowEngine {
            token: Duration::from_micros(token_us),
            memory,
            is_alone: memory < 1000,
        };
        let grid = Grid {
            batch_tokens: 256,
            batch_texts: 4,
            text_tokens: 64,
        };
        let duration = Duration::from_millis(100);
        measure(&mut engine, &checkpoint.tokenizer, grid, duration, |_| {}).unwrap()
    }

    #[test]
    fn every_batch_is_measured_or_reported_as_left_out() {
        let (points, skipped) = measured(0, 100);
        assert_eq!(points.len() + skipped.len(), 12);
        let is_large = |skipped: &Skipped| {
            skipped.shape.total() > 100 && matches!(skipped.reason, SkipReason::Memory)
        };
        assert!(skipped.len() == 3 && skipped.iter().all(is_large));
        for point in &points {
            assert!(point.repeats >= 1 && point.seconds_q1 <= point.seconds_median);
            assert!(point.seconds_median <= point.seconds_q3);
            assert!(point.cpu_seconds_median.is_some_and(|cpu| cpu >= 0.0));
        }
    }

    #[test]
    fn a_batch_that_takes_too_long_is_left_out() {
        // 8 tokens take 4 ms, and all shapes together more than half a second.
        let (points, skipped) = measured(500, 10_000);
        assert!(points.len() >= 2, "{points:?}");
        // This engine reports that several threads compute.
        assert!(points.iter().all(|p| p.cpu_seconds_median.is_none()));
        assert!(skipped.iter().any(|skipped| skipped.shape.total() == 256));
        assert!(skipped.iter().all(|s| matches!(s.reason, SkipReason::Time)));
        assert!(skipped.iter().all(|s| s.seconds_expected > 0.0));
    }

    #[test]
    fn quartiles_are_measured_values() {
        let seconds = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(
            [0.25, 0.5, 0.75].map(|share| quantile(&seconds, share)),
            [2.0, 3.0, 4.0]
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
