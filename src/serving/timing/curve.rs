//! How long the engine takes for a batch: τ(n) = τ0 + α·n for n tokens, learnt from every batch.
//!
//! The linear form is that of Inoue (2021, arXiv:1912.06322). Sizes are kept apart, so that hours of
//! batches of one size do not make the others forgotten: the line goes through one mean a size, each
//! weighted by how recent it is. The engine's thread learns; everybody else reads two atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Steps an octave of tokens; batches within one step count as of one size.
const STEPS_AN_OCTAVE: f64 = 4.0;
const STEPS: usize = 80;

/// Weight of the newest batch in the mean of its size.
const NEWEST: f64 = 0.2;

/// After this time the mean of a size counts half.
const HALF_LIFE: f64 = 30.0;

/// What the mean of a size counts however old it is: at low load only small batches come, and what a token
/// costs is then known from the large ones of long ago or of the calibration.
const WEIGHT_MIN: f64 = 0.05;

/// A token takes at least this part of what it took in the best batch. Small batches that were slow for
/// another reason would else make large ones free.
const TOKEN_MIN: f64 = 0.5;

/// A batch further from the mean of its size than so many mean deviations is counted as if it were that
/// far: one that stands out says little. A change of the machine widens the deviation from batch to batch,
/// so it is followed within some twenty of them.
const OUTLIER: f64 = 3.0;

/// The mean deviation is at least this part of the mean.
const DEVIATION_MIN: f64 = 0.02;

/// Weight of the newest batch in the mean error of the line.
const NEWEST_ERROR: f64 = 0.02;

/// The service curve of a model on this machine.
#[derive(Debug)]
pub(crate) struct ServiceCurve {
    sizes: Mutex<Sizes>,
    /// τ0 in seconds, and α in seconds a token: the bits of two `f64`.
    setup: AtomicU64,
    token: AtomicU64,
    /// Mean of how far batches were from the line, by what they took: the bits of an `f64`.
    error: AtomicU64,
    batches: AtomicU64,
}

#[derive(Debug)]
struct Sizes {
    means: [Option<Mean>; STEPS],
    origin: Instant,
}

/// Mean tokens and seconds of the batches of one size.
#[derive(Debug, Clone, Copy)]
struct Mean {
    tokens: f64,
    seconds: f64,
    /// Mean of the distance from the mean, in seconds.
    deviation: f64,
    /// When the newest came, in seconds.
    at: f64,
}

impl Mean {
    /// Of one batch.
    fn first(tokens: f64, seconds: f64, now: f64) -> Self {
        Self {
            tokens,
            seconds,
            deviation: 0.1 * seconds,
            at: now,
        }
    }

    /// With one more batch of about this size.
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

/// τ0 and α.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    /// Seconds that any batch takes.
    pub(crate) setup: f64,
    /// Seconds that a token adds.
    pub(crate) token: f64,
}

impl Line {
    /// Seconds for `batches` batches of `tokens` tokens together.
    pub(crate) fn seconds(self, batches: f64, tokens: f64) -> f64 {
        batches * self.setup + tokens * self.token
    }

    /// The line through batches of so many tokens and seconds each, nearest to all of them by their
    /// relative distance.
    pub(crate) fn through(batches: impl Iterator<Item = (f64, f64)>) -> Self {
        least_squares(batches.map(|(tokens, seconds)| (tokens, seconds, 1.0)))
    }

    /// How far a batch of `tokens` that took `seconds` is from it, as a part of these: 0 to 1.
    fn error(self, tokens: f64, seconds: f64) -> f64 {
        ((seconds - self.seconds(1.0, tokens)).abs() / seconds.max(1e-9)).min(1.0)
    }

    /// Tokens of the largest batch that takes at most `seconds`, but always enough that at most a
    /// fifth of its time is setup: smaller ones would waste the engine.
    pub(crate) fn tokens_within(self, seconds: f64) -> f64 {
        let token = self.token.max(1e-12);
        ((seconds - self.setup) / token).max(4.0 * self.setup / token)
    }
}

impl ServiceCurve {
    /// A curve of which nothing is known: every batch takes no time.
    pub(crate) fn new() -> Self {
        Self {
            sizes: Mutex::new(Sizes {
                means: [None; STEPS],
                origin: Instant::now(),
            }),
            setup: AtomicU64::new(0),
            token: AtomicU64::new(0),
            error: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        }
    }

    /// A batch of `tokens` took `took`.
    pub(crate) fn observe(&self, tokens: usize, took: Duration) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = sizes.origin.elapsed().as_secs_f64();
        let tokens = tokens.max(1) as f64;
        let seconds = took.as_secs_f64();
        let mean = &mut sizes.means[step(tokens)];
        *mean = Some(match mean {
            Some(mean) => mean.blended(tokens, seconds, now),
            None => Mean::first(tokens, seconds, now),
        });
        self.learn_error(tokens, seconds);
        let line = fit(sizes.means.iter().flatten(), now);
        // A reader may see one of the two before the other; both are close to what they were.
        self.setup.store(line.setup.to_bits(), Ordering::Relaxed);
        self.token.store(line.token.to_bits(), Ordering::Relaxed);
    }

    /// Knows nothing but these batches, of so many tokens and seconds each, all measured just now.
    pub(crate) fn begin(&self, batches: impl Iterator<Item = (f64, f64)> + Clone) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = sizes.origin.elapsed().as_secs_f64();
        sizes.means = [None; STEPS];
        for (tokens, seconds) in batches.clone() {
            let mean = &mut sizes.means[step(tokens)];
            *mean = Some(match mean {
                Some(mean) => mean.blended(tokens, seconds, now),
                None => Mean::first(tokens, seconds, now),
            });
        }
        let line = fit(sizes.means.iter().flatten(), now);
        let errors = batches.map(|(tokens, seconds)| line.error(tokens, seconds));
        let (sum, count) = errors.fold((0.0, 0), |(sum, n), error| (sum + error, n + 1));
        self.setup.store(line.setup.to_bits(), Ordering::Relaxed);
        self.token.store(line.token.to_bits(), Ordering::Relaxed);
        let error = sum / count.max(1) as f64;
        self.error.store(error.to_bits(), Ordering::Relaxed);
        self.batches.store(count, Ordering::Relaxed);
    }

    /// How far a batch was from the line, before it changes the line.
    fn learn_error(&self, tokens: f64, seconds: f64) {
        // What nobody could have known is no error.
        if self.batches.fetch_add(1, Ordering::Relaxed) == 0 {
            return;
        }
        let error = self.line().error(tokens, seconds);
        let before = f64::from_bits(self.error.load(Ordering::Relaxed));
        let after = before + NEWEST_ERROR * (error - before);
        self.error.store(after.to_bits(), Ordering::Relaxed);
    }

    /// Mean distance of batches from the line, as a part of what they took: 0 to 1.
    pub(crate) fn error(&self) -> f64 {
        f64::from_bits(self.error.load(Ordering::Relaxed))
    }

    /// Batches that the line was learnt from.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// The line as it stands.
    pub(crate) fn line(&self) -> Line {
        Line {
            setup: f64::from_bits(self.setup.load(Ordering::Relaxed)),
            token: f64::from_bits(self.token.load(Ordering::Relaxed)),
        }
    }
}

/// The line through the means, the newer ones before the older.
fn fit<'a>(means: impl Iterator<Item = &'a Mean>, now: f64) -> Line {
    let recency = |mean: &Mean| (-(now - mean.at) / HALF_LIFE).exp2().max(WEIGHT_MIN);
    least_squares(means.map(|mean| (mean.tokens, mean.seconds, recency(mean))))
}

/// Least squares of relative errors over `(tokens, seconds, weight)`; the setup is never negative, and a
/// token never free.
fn least_squares(points: impl Iterator<Item = (f64, f64, f64)>) -> Line {
    let (mut w, mut wn, mut wnn, mut wt, mut wnt) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let mut best = f64::INFINITY;
    for (n, seconds, weight) in points {
        let t = seconds.max(1e-9);
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
        // One size only says nothing about the setup.
        return Line {
            setup: 0.0,
            token: wt / wn.max(f64::MIN_POSITIVE),
        };
    }
    let setup = (wnn * wt - wn * wnt) / determinant;
    if setup < 0.0 {
        return Line {
            setup: 0.0,
            token: wnt / wnn,
        };
    }
    let token = (w * wnt - wn * wt) / determinant;
    let token = token.max(TOKEN_MIN * best);
    Line {
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

    fn micros(line: Line) -> (f64, f64) {
        (line.setup * 1e6, line.token * 1e6)
    }

    #[test]
    fn a_line_is_found_through_noise() {
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
    async fn a_machine_that_became_slower_is_noticed_within_a_minute() {
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
    async fn small_batches_of_a_quiet_hour_do_not_make_large_ones_free() {
        let curve = ServiceCurve::new();
        for tokens in [16_usize, 64, 256] {
            let took = 20.0 + tokens as f64;
            curve.observe(tokens, Duration::from_secs_f64(took / 1e6));
        }
        for round in 0..600 {
            tokio::time::advance(Duration::from_secs(6)).await;
            // Cold caches: three times as long, and longer for the smaller.
            curve.observe(
                8 + round % 3,
                Duration::from_micros(100 - (round % 3) as u64),
            );
        }
        let (_, token) = micros(curve.line());
        assert!((0.5..1.5).contains(&token), "{token}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_batch_in_twenty_that_stands_out_changes_little() {
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
    async fn another_curve_is_followed_within_a_minute_through_noise_and_outliers() {
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
    fn a_batch_is_never_so_small_that_it_is_all_setup() {
        let line = Line {
            setup: 1e-3,
            token: 1e-4,
        };
        assert!((line.tokens_within(0.011) - 100.0).abs() < 1e-6);
        assert!((line.tokens_within(0.0) - 40.0).abs() < 1e-6);
    }
}
