//! How soon a change of the load is believed.
//!
//! The rate of arrivals is published as an exponential mean over 15 s that begins at zero. It is linear: a replica
//! that joins gains load as the others lose it, and the sum over replicas stands still. Its weakness is a step, of
//! which it shows nine tenths after 35 s. So a step is looked for beside it:
//!
//! - Two windows of w seconds, one after the other, for w of 1, 2 and 4. Each has to hold more than the mean explains,
//!   by `DEVIATIONS` standard deviations: once in 700 windows by chance, so twice in a row once in half a million. Counts
//!   of a few arrivals are not normal, so each also has to differ by at least `ARRIVALS_MIN` of them. A single burst,
//!   however large, fills one window.
//! - A count of arrivals with mean m has variance D·m. D, the index of dispersion for counts (Cox and Lewis, The
//!   Statistical Analysis of Series of Events, 1966), is 1 for Poisson arrivals, and is learned as the mean of
//!   (b − a)²/(a + b) over neighbouring seconds with a and b arrivals. A step counts there once, a ramp hardly.
//! - A fall is looked for in the same way: where a replica joins, the others lose what it gets, and the sum over all is
//!   right only if both show at once.
//! - The new rate has to be beyond what one replica should get. Below that nobody needs to hurry, since one replica runs
//!   anyway. There the mean alone counts, which adds up by itself.
//!
//! The change then began with the first window. From there on the rate is the mean since, a little closer to what it was
//! before (`CAUTION`), until the mean over 15 s takes over from it, or until the load changes back.

use std::collections::VecDeque;

use self::variation::RateVariation;

/// Time constant of the mean in seconds. Two scrapes at the usual 15 s see most of a change.
pub(super) const MEAN_SECONDS: f64 = 15.0;

/// Lengths of the windows in seconds.
const WINDOWS: [f64; 3] = [1.0, 2.0, 4.0];

/// Seconds after which the mean takes over the rate since the change.
const TAKEN_OVER: f64 = 4.0;

/// Standard deviations by which a window differs from the mean.
const DEVIATIONS: f64 = 3.0;

/// Arrivals by which it differs at least. A few arrivals are not distributed normally.
const ARRIVALS_MIN: f64 = 6.0;

/// Standard deviations by which the rate since a change is taken to be closer to what it was before. Its overshoot then
/// stays within a few percent at 20 requests per second.
const CAUTION: f64 = 0.5;

/// Time constant of the dispersion in seconds.
const DISPERSION_SECONDS: f64 = 120.0;

/// A pair of seconds counts at most as this many times the known dispersion.
const OUTLIER: f64 = 36.0;

/// Rates a second, or counts, of what comes and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flows {
    /// Offered requests, including refused ones.
    pub offered: f64,
    /// Answered requests, including server errors.
    pub accepted: f64,
    /// Requests that were refused because of the load or the server's state.
    pub refused: f64,
    /// The part of `refused` that was refused because of overload.
    pub overloaded: f64,
    /// Requests that failed because of a server error.
    pub failed: f64,
    /// Offered tokens.
    pub tokens: f64,
    /// Offered bytes of large bodies.
    pub large: f64,
}

impl Flows {
    /// Combines each part with that of `other`.
    fn with(self, other: Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            offered: combine(self.offered, other.offered),
            accepted: combine(self.accepted, other.accepted),
            refused: combine(self.refused, other.refused),
            overloaded: combine(self.overloaded, other.overloaded),
            failed: combine(self.failed, other.failed),
            tokens: combine(self.tokens, other.tokens),
            large: combine(self.large, other.large),
        }
    }

    /// All parts times `factor`.
    fn times(self, factor: f64) -> Self {
        self.with(self, |part, _| part * factor)
    }

    /// At most so many requests of `size` tokens offered.
    pub(super) fn bounded(self, requests: f64, size: f64) -> Self {
        let factor = (requests / self.offered).min(requests * size / self.tokens);
        if factor < 1.0 {
            Self {
                offered: self.offered * factor,
                tokens: self.tokens * factor,
                large: self.large * factor,
                ..self
            }
        } else {
            self
        }
    }
}

/// What arrived between two updates.
#[derive(Debug, Clone, Copy)]
struct Look {
    seconds: f64,
    counts: Flows,
}

/// Whether the load rises or falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// It rises.
    Rise,
    /// It falls.
    Fall,
}

impl Direction {
    /// 1 or -1.
    fn sign(self) -> f64 {
        match self {
            Self::Rise => 1.0,
            Self::Fall => -1.0,
        }
    }
}

/// A change of the load that is being followed.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// The number of looks since it began.
    looks: usize,
    direction: Direction,
}

/// The smoothed load of a server.
#[derive(Debug)]
pub(super) struct Smoothed {
    mean: Flows,
    /// The newest last. They cover two of the longest windows.
    looks: VecDeque<Look>,
    dispersion: f64,
    variation: RateVariation,
    change: Option<Change>,
}

impl Smoothed {
    /// No load.
    pub(super) fn new() -> Self {
        Self {
            mean: Flows::default(),
            looks: VecDeque::new(),
            dispersion: 1.0,
            variation: RateVariation::default(),
            change: None,
        }
    }

    /// Forgets the load, but not how it varies.
    pub(super) fn clear(&mut self) {
        *self = Self {
            dispersion: self.dispersion,
            variation: std::mem::take(&mut self.variation),
            ..Self::new()
        };
    }

    /// Adds what came in the last `seconds`. `size` is the mean tokens of a request, and `replica` the requests a second
    /// that one replica should get. Returns the direction of a change that the mean has taken over.
    pub(super) fn add(
        &mut self,
        counts: Flows,
        seconds: f64,
        size: f64,
        replica: f64,
    ) -> Option<Direction> {
        self.looks.push_back(Look { seconds, counts });
        let kept = 2.0 * WINDOWS[WINDOWS.len() - 1] + seconds;
        while self.seconds(self.looks.len() - 1) >= kept {
            self.looks.pop_front();
        }
        self.learn_dispersion(size, seconds);
        let gain = 1.0 - (-seconds / MEAN_SECONDS).exp();
        let found = counts.times(1.0 / seconds);
        self.mean = self
            .mean
            .with(found, |mean, found| mean + gain * (found - mean));
        let followed = self.change.map(|change| Change {
            looks: change.looks + 1,
            ..change
        });
        self.change = followed
            .or_else(|| self.find_change(size, replica))
            .filter(|change| !self.has_ended(*change, size));
        let is_old = |change: &Change| self.seconds(change.looks) >= TAKEN_OVER;
        let change = self.change.filter(is_old)?;
        self.change = None;
        self.mean = self.followed(change, size);
        Some(change.direction)
    }

    /// Bounds the mean to so many requests of `size` tokens offered per second.
    pub(super) fn bound(&mut self, requests: f64, size: f64) {
        self.mean = self.mean.bounded(requests, size);
    }

    /// The published rates. `size` is the mean tokens of a request.
    pub(super) fn rates(&self, size: f64) -> Flows {
        self.change
            .map_or(self.mean, |change| self.followed(change, size))
    }

    /// The exponential mean alone.
    pub(super) fn mean(&self) -> Flows {
        self.mean
    }

    /// The variance of the rate itself from second to second, as a share of its square: 0 for Poisson arrivals.
    /// Requests that differ in size by `spread`, a coefficient of variation, do not count.
    pub(super) fn burstiness(&self, spread: f64) -> f64 {
        self.variation.share(1.0 + spread * spread)
    }

    /// The highest rate of a second by the mean rate; infinite while little is known.
    pub(super) fn highest(&self) -> f64 {
        self.variation.highest()
    }

    /// The rates since a change, a little closer to the mean, but not beyond it.
    fn followed(&self, change: Change, size: f64) -> Flows {
        let counts = self.counts(0..change.looks);
        let arrived = counts.tokens / size;
        let error = CAUTION * (self.dispersion / arrived.max(1.0)).sqrt();
        let sign = change.direction.sign();
        let factor = (1.0 - sign * error).max(0.0);
        let since = counts.times(factor / self.seconds(change.looks));
        let is_beyond = sign * (since.tokens - self.mean.tokens) < 0.0;
        if is_beyond { self.mean } else { since }
    }

    /// A change that two windows show, if any.
    fn find_change(&self, size: f64, replica: f64) -> Option<Change> {
        let mean = self.mean.tokens / size;
        WINDOWS.into_iter().find_map(|window| {
            let second = self.looks_within(window)?;
            let both = self.looks_within(2.0 * window)?;
            // By how much a window differs from the mean, beyond what may be chance: 0 if that explains it.
            let difference = |range: std::ops::Range<usize>| {
                let seconds = self.seconds(range.end) - self.seconds(range.start);
                let expected = mean * seconds;
                // The mean is itself known from the last 2·15 s only.
                let variance = self.dispersion
                    * (expected + mean * seconds * seconds / (2.0 * MEAN_SECONDS)).max(1.0);
                let found = self.counts(range).tokens / size - expected;
                let chance = (DEVIATIONS * variance.sqrt()).max(ARRIVALS_MIN);
                if found.abs() > chance { found } else { 0.0 }
            };
            let (new, old) = (difference(0..second), difference(second..both));
            if new * old <= 0.0 {
                return None;
            }
            let rate = self.counts(0..second).tokens / size / self.seconds(second);
            (rate > replica).then_some(Change {
                // The first look may have begun before the change.
                looks: both - 1,
                direction: if new > 0.0 {
                    Direction::Rise
                } else {
                    Direction::Fall
                },
            })
        })
    }

    /// Whether the last second differs from the time since the change, against its direction.
    fn has_ended(&self, change: Change, size: f64) -> bool {
        let Some(last) = self.looks_within(WINDOWS[0]) else {
            return false;
        };
        let rate = |looks: usize| self.counts(0..looks).tokens / size / self.seconds(looks);
        let seconds = self.seconds(last);
        let expected = rate(change.looks) * seconds;
        let deviation = (self.dispersion * expected.max(1.0)).sqrt();
        change.direction.sign() * (expected - rate(last) * seconds) > DEVIATIONS * deviation
    }

    fn learn_dispersion(&mut self, size: f64, seconds: f64) {
        let (Some(one), Some(two)) = (self.looks_within(1.0), self.looks_within(2.0)) else {
            return;
        };
        if one == two {
            return; // A single look covers both.
        }
        // The windows may differ in length. A rate r that is counted for s seconds has the variance D·r/s.
        let (new_seconds, both) = (self.seconds(one), self.seconds(two));
        let old_seconds = both - new_seconds;
        let new = self.counts(0..one).tokens / size / new_seconds;
        let old = self.counts(one..two).tokens / size / old_seconds;
        let variance = new / new_seconds + old / old_seconds;
        self.variation.see(new);
        if variance > 0.0 {
            let found = (new - old).powi(2) / variance;
            let found = found.min(OUTLIER * self.dispersion);
            let gain = 1.0 - (-seconds / DISPERSION_SECONDS).exp();
            self.dispersion = (self.dispersion + gain * (found - self.dispersion)).max(1.0);
            self.variation
                .add([old, new], found * variance, variance, gain);
        }
    }

    /// The number of newest looks that cover `seconds`, give or take a tenth; none if there are too few.
    fn looks_within(&self, seconds: f64) -> Option<usize> {
        (1..=self.looks.len()).find(|looks| self.seconds(*looks) >= 0.9 * seconds)
    }

    /// Seconds that the newest `looks` cover.
    fn seconds(&self, looks: usize) -> f64 {
        let newest = self.looks.iter().rev().take(looks);
        newest.map(|look| look.seconds).sum()
    }

    /// The counts of a range of looks, of which 0 is the newest.
    fn counts(&self, range: std::ops::Range<usize>) -> Flows {
        let looks = self.looks.iter().rev();
        looks
            .skip(range.start)
            .take(range.len())
            .fold(Flows::default(), |sum, look| {
                sum.with(look.counts, |sum, more| sum + more)
            })
    }
}

#[cfg(test)]
mod tests;
mod variation;
