//! The service curve: time of a batch of n tokens, τ(n) = τ0 + α·n, learned from every batch.
//!
//! The linear form is that of Inoue (2021, arXiv:1912.06322). There is one mean per batch size, so that hours
//! of batches of one size do not erase the others. The line is fitted to these means, weighted by recency.
//! The engine's thread learns; all others read two atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::sample::BatchSample;
use intentd_base::atomic::AtomicF64;

/// Size steps per octave of tokens. Batches within one step count as one size.
const STEPS_AN_OCTAVE: f64 = 4.0;
const STEPS: usize = 80;

/// Weight of the newest batch in the mean of its size.
const NEWEST: f64 = 0.2;

/// Half-life of the weight of a mean, in seconds.
const HALF_LIFE: f64 = 30.0;

/// Minimum weight of a mean, however old. At low load only small batches run, and the cost of a token is then
/// known only from old large batches or from calibration.
const WEIGHT_MIN: f64 = 0.05;

/// A token costs at least this share of its cost in the best batch. Otherwise small batches that were slow for
/// another reason would make large ones look free.
const TOKEN_MIN: f64 = 0.5;

/// The distance of a batch from its mean is clamped to this many mean deviations, because a single outlier
/// says little. A change of the machine widens the deviation with every batch, so the mean follows within
/// about twenty batches.
const OUTLIER: f64 = 3.0;

/// Minimum of the mean deviation, as a share of the mean.
const DEVIATION_MIN: f64 = 0.02;

/// Weight of the newest batch in the mean error of the line.
const NEWEST_ERROR: f64 = 0.02;

/// The service curve of a model on this machine.
#[derive(Debug)]
pub(crate) struct ServiceCurve {
    sizes: Mutex<Sizes>,
    /// τ0 in seconds and α in seconds per token.
    setup: AtomicF64,
    token: AtomicF64,
    /// Mean relative distance of batches from the line.
    error: AtomicF64,
    batches: AtomicU64,
}

#[derive(Debug)]
struct Sizes {
    means: [Option<SizeMean>; STEPS],
    origin: Instant,
}

/// The mean tokens and seconds of batches of one size.
#[derive(Debug, Clone, Copy)]
struct SizeMean {
    tokens: f64,
    seconds: f64,
    /// Mean distance from the mean, in seconds.
    deviation: f64,
    /// Time of the newest batch, in seconds.
    at: f64,
}

impl SizeMean {
    /// The mean of one batch.
    fn first(tokens: f64, seconds: f64, now: f64) -> Self {
        Self {
            tokens,
            seconds,
            deviation: 0.1 * seconds,
            at: now,
        }
    }

    /// The mean with one more batch of this size.
    fn blended(&self, tokens: f64, seconds: f64, now: f64) -> Self {
        let far = OUTLIER * self.deviation.max(DEVIATION_MIN * self.seconds);
        let expected = self.seconds * tokens / self.tokens;
        let distance = (seconds - expected).clamp(-far, far);
        Self {
            tokens: self.tokens + NEWEST * (tokens - self.tokens),
            seconds: self.seconds + NEWEST * (expected + distance - self.seconds),
            deviation: self.deviation + NEWEST * (distance.abs() - self.deviation),
            at: now,
        }
    }
}

/// The line of a service curve: τ0 and α.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ServiceLine {
    /// τ0: seconds per batch.
    pub(crate) setup: f64,
    /// α: seconds per token.
    pub(crate) token: f64,
}

impl ServiceLine {
    /// Seconds for `batches` batches with `tokens` tokens in total.
    pub(crate) fn seconds(self, batches: f64, tokens: f64) -> f64 {
        batches * self.setup + tokens * self.token
    }

    /// The line with the least relative squared errors over `batches`.
    pub(crate) fn through(batches: impl Iterator<Item = BatchSample>) -> Self {
        least_squares(batches.map(|batch| (batch, 1.0)))
    }

    /// The relative error for a batch of `tokens` that took `seconds`: 0 to 1.
    fn error(self, tokens: f64, seconds: f64) -> f64 {
        ((seconds - self.seconds(1.0, tokens)).abs() / seconds.max(1e-9)).min(1.0)
    }

    /// Tokens of the largest batch that takes at most `seconds`, but always enough that setup is at most a
    /// fifth of its time. Smaller batches would waste the engine.
    pub(crate) fn tokens_within(self, seconds: f64) -> f64 {
        let token = self.token.max(1e-12);
        ((seconds - self.setup) / token).max(4.0 * self.setup / token)
    }
}

impl ServiceCurve {
    /// An unknown curve: batches take no time.
    pub(crate) fn new() -> Self {
        Self {
            sizes: Mutex::new(Sizes {
                means: [None; STEPS],
                origin: Instant::now(),
            }),
            setup: AtomicF64::default(),
            token: AtomicF64::default(),
            error: AtomicF64::default(),
            batches: AtomicU64::new(0),
        }
    }

    /// Learns that a batch of `tokens` took `took`.
    pub(crate) fn observe(&self, tokens: usize, took: Duration) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = sizes.origin.elapsed().as_secs_f64();
        let tokens = tokens.max(1) as f64;
        let seconds = took.as_secs_f64();
        let mean = &mut sizes.means[step(tokens)];
        *mean = Some(match mean {
            Some(mean) => mean.blended(tokens, seconds, now),
            None => SizeMean::first(tokens, seconds, now),
        });
        self.learn_error(tokens, seconds);
        let line = fit(sizes.means.iter().flatten(), now);
        // A reader may see one updated before the other. Both change only a little.
        self.setup.store(line.setup);
        self.token.store(line.token);
    }

    /// Resets the curve to these batches, as if all were measured just now.
    pub(crate) fn begin(&self, batches: impl Iterator<Item = BatchSample> + Clone) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = sizes.origin.elapsed().as_secs_f64();
        sizes.means = [None; STEPS];
        for BatchSample { tokens, seconds } in batches.clone() {
            let mean = &mut sizes.means[step(tokens)];
            *mean = Some(match mean {
                Some(mean) => mean.blended(tokens, seconds, now),
                None => SizeMean::first(tokens, seconds, now),
            });
        }
        let line = fit(sizes.means.iter().flatten(), now);
        let errors = batches.map(|batch| line.error(batch.tokens, batch.seconds));
        let (sum, count) = errors.fold((0.0, 0), |(sum, n), error| (sum + error, n + 1));
        self.setup.store(line.setup);
        self.token.store(line.token);
        let error = sum / count.max(1) as f64;
        self.error.store(error);
        self.batches.store(count, Ordering::Relaxed);
    }

    /// Learns the error of a batch, before the batch changes the line.
    fn learn_error(&self, tokens: f64, seconds: f64) {
        // Without an earlier batch there was no prediction.
        if self.batches.fetch_add(1, Ordering::Relaxed) == 0 {
            return;
        }
        let error = self.line().error(tokens, seconds);
        let before = self.error.load();
        let after = before + NEWEST_ERROR * (error - before);
        self.error.store(after);
    }

    /// Mean relative error of the line: 0 to 1.
    pub(crate) fn error(&self) -> f64 {
        self.error.load()
    }

    /// Batches that the line was learned from.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// The current line.
    pub(crate) fn line(&self) -> ServiceLine {
        ServiceLine {
            setup: self.setup.load(),
            token: self.token.load(),
        }
    }
}

/// The line through the means, weighted by recency.
fn fit<'a>(means: impl Iterator<Item = &'a SizeMean>, now: f64) -> ServiceLine {
    let recency = |mean: &SizeMean| (-(now - mean.at) / HALF_LIFE).exp2().max(WEIGHT_MIN);
    least_squares(means.map(|mean| {
        let batch = BatchSample {
            tokens: mean.tokens,
            seconds: mean.seconds,
        };
        (batch, recency(mean))
    }))
}

/// Least squares of relative errors over weighted batches. The setup is never negative, and a token never free.
fn least_squares(points: impl Iterator<Item = (BatchSample, f64)>) -> ServiceLine {
    let (mut w, mut wn, mut wnn, mut wt, mut wnt) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let mut best = f64::INFINITY;
    for (batch, weight) in points {
        let n = batch.tokens;
        let t = batch.seconds.max(1e-9);
        let weight = weight / (t * t);
        w += weight;
        wn += weight * n;
        wnn += weight * n * n;
        wt += weight * t;
        wnt += weight * n * t;
        best = best.min(t / n);
    }
    let determinant = w * wnn - wn * wn;
    if determinant <= 1e-9 * w * wnn {
        // A single size says nothing about the setup.
        return ServiceLine {
            setup: 0.0,
            token: wt / wn.max(f64::MIN_POSITIVE),
        };
    }
    let setup = (wnn * wt - wn * wnt) / determinant;
    if setup < 0.0 {
        return ServiceLine {
            setup: 0.0,
            token: wnt / wnn,
        };
    }
    let token = (w * wnt - wn * wt) / determinant;
    let token = token.max(TOKEN_MIN * best);
    ServiceLine {
        setup: ((wt - token * wn) / w).max(0.0),
        token,
    }
}

fn step(tokens: f64) -> usize {
    ((tokens.log2() * STEPS_AN_OCTAVE) as usize).min(STEPS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(line: ServiceLine) -> (f64, f64) {
        (line.setup * 1e6, line.token * 1e6)
    }

    #[test]
    fn a_line_is_learned_despite_noise() {
        let curve = ServiceCurve::new();
        for round in 0..200_u32 {
            let tokens = 8 << (round % 7);
            let noise = 1.0 + 0.1 * f64::from(round % 3) - 0.1;
            let took = (200.0 + 10.0 * f64::from(tokens)) * noise;
            curve.observe(tokens as usize, Duration::from_secs_f64(took / 1e6));
        }
        let (setup, token) = micros(curve.line());
        assert!((190.0..210.0).contains(&setup), "{setup}");
        assert!((9.5..10.5).contains(&token), "{token}");
    }

    #[test]
    fn one_size_alone_gives_a_line_through_it() {
        let curve = ServiceCurve::new();
        for _ in 0..10 {
            curve.observe(100, Duration::from_millis(1));
        }
        let line = curve.line();
        assert!((line.seconds(1.0, 100.0) - 1e-3).abs() < 1e-6, "{line:?}");
    }

    #[test]
    fn neither_part_is_ever_negative() {
        let curve = ServiceCurve::new();
        curve.observe(10, Duration::from_millis(10));
        curve.observe(1000, Duration::from_millis(1));
        let line = curve.line();
        assert!(line.token > 0.0 && line.setup > 0.0, "{line:?}");
        let curve = ServiceCurve::new();
        curve.observe(10, Duration::from_micros(1));
        curve.observe(100, Duration::from_millis(1));
        let line = curve.line();
        assert!(line.setup >= 0.0 && line.token > 0.0, "{line:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slower_machine_is_learned_within_a_minute() {
        let curve = ServiceCurve::new();
        let learn = |factor: u32| {
            for tokens in [16, 64, 256] {
                curve.observe(tokens, factor * Duration::from_micros(tokens as u64 * 10));
            }
        };
        learn(1);
        for _ in 0..60 {
            tokio::time::advance(Duration::from_secs(1)).await;
            learn(2);
        }
        let (_, token) = micros(curve.line());
        assert!((19.0..21.0).contains(&token), "{token}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_small_batches_does_not_make_large_ones_free() {
        let curve = ServiceCurve::new();
        for tokens in [16_usize, 64, 256] {
            let took = 20.0 + tokens as f64;
            curve.observe(tokens, Duration::from_secs_f64(took / 1e6));
        }
        for round in 0..600 {
            tokio::time::advance(Duration::from_secs(6)).await;
            // Cold caches: three times as long, and longer for smaller batches.
            curve.observe(
                8 + round % 3,
                Duration::from_micros(100 - (round % 3) as u64),
            );
        }
        let (_, token) = micros(curve.line());
        assert!((0.5..1.5).contains(&token), "{token}");
    }

    #[tokio::test(start_paused = true)]
    async fn outliers_change_little() {
        let curve = ServiceCurve::new();
        for round in 0..2000_u32 {
            tokio::time::advance(Duration::from_millis(20)).await;
            let tokens = 8 << (round % 7);
            let noise = 1.0 + 0.04 * f64::from(round % 5) - 0.08;
            // Not in step with the sizes.
            let stands_out = if round % 20 == 3 { 10.0 } else { 1.0 };
            let took = (200.0 + 10.0 * f64::from(tokens)) * noise * stands_out;
            curve.observe(tokens as usize, Duration::from_secs_f64(took / 1e6));
        }
        let (setup, token) = micros(curve.line());
        assert!((190.0..210.0).contains(&setup), "{setup}");
        assert!((9.5..10.5).contains(&token), "{token}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_curve_is_learned_within_a_minute_despite_noise_and_outliers() {
        let curve = ServiceCurve::new();
        for (setup, token) in [(200.0, 10.0), (500.0, 25.0), (100.0, 5.0)] {
            for round in 0..3000_u32 {
                tokio::time::advance(Duration::from_millis(20)).await;
                let tokens = 8 << (round % 7);
                let noise = 1.0 + 0.04 * f64::from(round % 5) - 0.08;
                let stands_out = if round % 20 == 3 { 10.0 } else { 1.0 };
                let took = (setup + token * f64::from(tokens)) * noise * stands_out;
                curve.observe(tokens as usize, Duration::from_secs_f64(took / 1e6));
            }
            let (found_setup, found_token) = micros(curve.line());
            assert!((found_setup / setup - 1.0).abs() < 0.05, "{found_setup}");
            assert!((found_token / token - 1.0).abs() < 0.05, "{found_token}");
        }
    }

    #[test]
    fn a_batch_is_never_mostly_setup() {
        let line = ServiceLine {
            setup: 1e-3,
            token: 1e-4,
        };
        assert!((line.tokens_within(0.011) - 100.0).abs() < 1e-6);
        assert!((line.tokens_within(0.0) - 40.0).abs() < 1e-6);
    }
}
