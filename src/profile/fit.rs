//! The line through the measured times of batches.

use serde::{Deserialize, Serialize};

use super::point::Point;
use crate::autoscale::queueing::BatchService;
use crate::serving::{BatchSample, ServiceLine};

/// Most tokens of the texts that the line is fitted to, unless requests are longer. The cost of attention
/// grows with the square of the length, which a line cannot express.
const TEXT_TOKENS: usize = 64;

/// The service curve τ(n) = τ0 + α·n: seconds for a batch of n tokens, fitted by least squares of relative
/// errors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// τ0: the fixed time of a batch.
    pub tau0_seconds: f64,
    /// α: the time that each token adds.
    pub alpha_seconds: f64,
    /// Mean absolute error of the line, relative to the measured time.
    pub error_ratio: f64,
    /// Largest absolute error of the line, relative to the measured time.
    pub error_ratio_max: f64,
    /// Most tokens of the texts that the line is fitted to.
    pub text_tokens: usize,
}

impl Fit {
    /// Fits the line for requests of `tokens` tokens.
    pub fn new(points: &[Point], tokens: usize) -> Self {
        let wanted = TEXT_TOKENS.max(2 * tokens);
        let least = points.iter().map(|p| p.shape.tokens).min().unwrap_or(1);
        let text_tokens = wanted.max(least);
        let counted = || points.iter().filter(|p| p.shape.tokens <= text_tokens);
        let line = counted().map(|p| BatchSample {
            tokens: p.shape.total() as f64,
            seconds: p.seconds_median,
        });
        let ServiceLine { setup, token } = ServiceLine::through(line);
        let fit = Self {
            tau0_seconds: setup,
            alpha_seconds: token,
            error_ratio: 0.0,
            error_ratio_max: 0.0,
            text_tokens,
        };
        let errors: Vec<f64> = counted().map(|p| fit.distance(p).abs()).collect();
        Self {
            error_ratio: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
            error_ratio_max: errors.iter().copied().fold(0.0, f64::max),
            ..fit
        }
    }

    /// Seconds for a batch of `tokens`.
    pub fn seconds(&self, tokens: f64) -> f64 {
        self.tau0_seconds + self.alpha_seconds * tokens
    }

    /// How far a point is above the line, relative to its measured time; negative below the line.
    pub fn distance(&self, point: &Point) -> f64 {
        let expected = self.seconds(point.shape.total() as f64);
        (point.seconds_median - expected) / point.seconds_median.max(1e-9)
    }

    /// The service curve for batches of requests of `tokens` tokens each.
    pub fn service(&self, tokens: f64) -> BatchService {
        BatchService {
            setup: self.tau0_seconds,
            request: self.alpha_seconds * tokens,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::profile::Grid;

    /// Points of an engine that takes exactly 1 ms a batch and 10 µs a token, and twice as long for texts of
    /// more than 64 tokens.
    pub(in crate::profile) fn points() -> Vec<Point> {
        let grid = Grid {
            batch_tokens: 4096,
            batch_texts: 256,
            text_tokens: 512,
        };
        // Whole nanoseconds: the JSON reader may round the last digit of longer numbers.
        let nanos = |seconds: f64| (seconds * 1e9).round() / 1e9;
        let point = |shape: super::super::Shape| {
            let linear = 1e-3 + 10e-6 * shape.total() as f64;
            let seconds = if shape.tokens > 64 { 2.0 } else { 1.0 } * linear;
            let seconds = nanos(seconds);
            Point {
                shape,
                seconds_median: seconds,
                seconds_q1: nanos(0.9 * seconds),
                seconds_q3: nanos(1.1 * seconds),
                cpu_seconds_median: Some(nanos(0.95 * seconds)),
                repeats: 5,
            }
        };
        grid.shapes().into_iter().map(point).collect()
    }

    #[test]
    fn a_fit_recovers_a_known_line() {
        let fit = Fit::new(&points(), 16);
        assert!((fit.tau0_seconds - 1e-3).abs() < 1e-9, "{fit:?}");
        assert!((fit.alpha_seconds - 10e-6).abs() < 1e-12, "{fit:?}");
        assert!(fit.error_ratio_max < 1e-6 && fit.text_tokens == 64);
        let long = Fit::new(&points(), 256);
        assert!(
            long.text_tokens == 512 && long.error_ratio > 0.1,
            "{long:?}"
        );
    }

    #[test]
    fn the_error_is_the_distance_of_the_points() {
        let mut points = points();
        points.retain(|point| point.shape.tokens <= 64);
        for (n, point) in points.iter_mut().enumerate() {
            point.seconds_median *= if n % 2 == 0 { 1.1 } else { 0.9 };
        }
        let fit = Fit::new(&points, 16);
        assert!((0.05..0.15).contains(&fit.error_ratio), "{fit:?}");
        assert!(fit.error_ratio_max >= fit.error_ratio);
    }
}
