//! The line through what was measured.

use serde::{Deserialize, Serialize};

use super::file::Point;
use crate::autoscale::queueing::BatchService;
use crate::serving::{BatchSample, ServiceLine};

/// Longer texts do not count for the line, unless requests are long: what attention costs them grows with
/// the square of their length, which a line cannot say.
const TEXT_TOKENS: usize = 64;

/// τ(n) = τ0 + α·n seconds for a batch of n tokens, by least squares of relative errors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// τ0: what any batch takes.
    pub tau0_seconds: f64,
    /// α: what a token adds.
    pub alpha_seconds: f64,
    /// Mean distance of the points from the line, as a part of what they took.
    pub error_ratio: f64,
    /// The largest distance.
    pub error_ratio_max: f64,
    /// Points of texts up to so many tokens count.
    pub text_tokens: usize,
}

impl Fit {
    /// The line for requests of `tokens`.
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

    /// How far a point is above the line, as a part of what it took; below zero where it is under it.
    pub fn distance(&self, point: &Point) -> f64 {
        let expected = self.seconds(point.shape.total() as f64);
        (point.seconds_median - expected) / point.seconds_median.max(1e-9)
    }

    /// Batches of requests of `tokens` each.
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

    /// What an engine would give that takes exactly 1 ms a batch and 10 µs a token, and for texts of more
    /// than 64 tokens twice as long.
    pub(in crate::profile) fn points() -> Vec<Point> {
        let grid = Grid {
            batch_tokens: 4096,
            batch_texts: 256,
            text_tokens: 512,
        };
        // As a clock gives them; the JSON reader may miss the last digit of longer numbers.
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
    fn a_known_line_is_found_again() {
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
    fn the_error_is_that_of_the_points() {
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
