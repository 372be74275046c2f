//! Batches by turns.

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::file::{Point, Reason, Skipped};
use super::grid::{Grid, Shape};
use crate::engine::{Engine, EngineError, RaggedBatch};
use crate::model::Tokenizer;
use crate::serving::{BatchSample, BatchTime, ServiceLine, batch_of, timed};

/// Every batch that is measured should run so often at least, once to warm up.
const RUNS: f64 = 4.0;

/// A short batch is repeated for so long before the next one has its turn.
const SLICE: Duration = Duration::from_millis(1);

/// Seed of the orders in which batches take their turns: the same in every run.
const ORDER_SEED: u64 = 1;

/// A batch and its times: from start to end, and what the engine spent.
struct Cell {
    shape: Shape,
    batch: RaggedBatch,
    times: Vec<BatchTime>,
}

/// Measures the batches of `grid` within about `duration`, and says which were left out. `tick` hears how
/// long it has taken so far.
///
/// Every batch has its turn in every round, so that a moment in which the machine is busy does not fall on
/// one of them alone.
///
/// # Errors
/// The engine's, except that what the device has no memory for is left out.
pub fn measure(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    grid: Grid,
    duration: Duration,
    mut tick: impl FnMut(Duration),
) -> Result<(Vec<Point>, Vec<Skipped>), EngineError> {
    let start = Instant::now();
    let (mut cells, skipped) = warm_up(engine, tokenizer, grid, duration)?;
    let mut orders = ChaCha8Rng::seed_from_u64(ORDER_SEED);
    for round in 0_usize.. {
        if cells.is_empty() || (round > 0 && start.elapsed() >= duration) {
            break;
        }
        // No batch always runs behind the same one.
        cells.shuffle(&mut orders);
        for cell in &mut cells {
            let slice = Instant::now();
            while cell.times.len() <= round || slice.elapsed() < SLICE {
                cell.times.push(timed(engine, &cell.batch)?);
            }
            tick(start.elapsed());
            if round > 0 && start.elapsed() >= duration {
                break;
            }
        }
    }
    // Of several threads, or of a device, this one's CPU time says nothing.
    let is_alone = engine.computes_alone();
    let mut points: Vec<Point> = cells.iter().map(|cell| cell.point(is_alone)).collect();
    points.sort_by_key(|point| (point.shape.tokens, point.shape.texts));
    Ok((points, skipped))
}

/// Runs every batch once for which there will be time to run it again.
fn warm_up(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    grid: Grid,
    duration: Duration,
) -> Result<(Vec<Cell>, Vec<Skipped>), EngineError> {
    let (mut cells, mut skipped) = (Vec::new(), Vec::new());
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
            let reason = Reason::Time;
            skipped.push(Skipped {
                shape,
                reason,
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
                cells.push(Cell {
                    shape,
                    batch,
                    times,
                });
            }
            Err(EngineError::OutOfMemory { .. }) => skipped.push(Skipped {
                shape,
                reason: Reason::Memory,
                seconds_expected: expected,
            }),
            Err(error) => return Err(error),
        }
    }
    Ok((cells, skipped))
}

impl Cell {
    fn point(&self, is_alone: bool) -> Point {
        let took = sorted(self.times.iter().map(|time| time.took));
        let spent = sorted(self.times.iter().map(|time| time.spent));
        Point {
            shape: self.shape,
            seconds_median: quantile(&took, 0.5),
            seconds_q1: quantile(&took, 0.25),
            seconds_q3: quantile(&took, 0.75),
            cpu_seconds_median: is_alone.then(|| quantile(&spent, 0.5)),
            repeats: took.len(),
        }
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut seconds: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// The value below which the part `part` of `sorted` lies; 0 of nothing.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Logits;
    use crate::model::Checkpoint;

    /// Takes a time for each token, and has memory for so many.
    #[derive(Debug)]
    struct Slow {
        token: Duration,
        memory: usize,
        is_alone: bool,
    }

    impl Engine for Slow {
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
        let mut engine = Slow {
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
    fn every_batch_is_measured_or_said_to_be_left_out() {
        let (points, skipped) = measured(0, 100);
        assert_eq!(points.len() + skipped.len(), 12);
        let is_large = |skipped: &Skipped| {
            skipped.shape.total() > 100 && matches!(skipped.reason, Reason::Memory)
        };
        assert!(skipped.len() == 3 && skipped.iter().all(is_large));
        for point in &points {
            assert!(point.repeats >= 1 && point.seconds_q1 <= point.seconds_median);
            assert!(point.seconds_median <= point.seconds_q3);
            assert!(point.cpu_seconds_median.is_some_and(|cpu| cpu >= 0.0));
        }
    }

    #[test]
    fn what_would_take_too_long_is_left_out() {
        // 8 tokens take 4 ms, all sizes together half a second and more.
        let (points, skipped) = measured(500, 10_000);
        assert!(points.len() >= 2, "{points:?}");
        // By this engine's account several threads compute.
        assert!(points.iter().all(|p| p.cpu_seconds_median.is_none()));
        assert!(skipped.iter().any(|skipped| skipped.shape.total() == 256));
        assert!(skipped.iter().all(|s| matches!(s.reason, Reason::Time)));
        assert!(skipped.iter().all(|s| s.seconds_expected > 0.0));
    }

    #[test]
    fn quartiles_are_values_that_were_seen() {
        let seconds = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(
            [0.25, 0.5, 0.75].map(|part| quantile(&seconds, part)),
            [2.0, 3.0, 4.0]
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
