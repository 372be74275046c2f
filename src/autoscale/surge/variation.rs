//! How the rate varies from second to second, beyond chance.

use std::collections::VecDeque;

/// The dispersion of a steady load is known only so well: to about a quarter.
const DISPERSION_NOISE: f64 = 0.25;

/// At this many requests per second, half of the variation beyond chance counts as a varying rate, and more at higher
/// rates. At low rates, a few requests that come together look the same.
const CLUMPS: f64 = 50.0;

/// Looks whose last second is remembered: two minutes of the usual half seconds.
const REMEMBERED: usize = 240;

/// Looks from which a distribution is known.
const KNOWN: usize = 60;

/// The highest rate is that of a second with which so many of the requests have come.
const HIGHEST: f64 = 0.995;

/// The variance of the rate, as means over some time that begin at zero, and its highest values.
///
/// The dispersion of a rate that varies grows with the rate, so that remembered from a higher one it says too much. The
/// variance and the square of the rate are therefore remembered each by itself: their ratio belongs to no rate.
#[derive(Debug, Clone, Default)]
pub(super) struct RateVariation {
    /// Of the difference of neighbouring seconds, squared.
    found: f64,
    /// What that would be for Poisson arrivals.
    chance: f64,
    /// What it would be if the rate's standard deviation were the rate itself, with an allowance for clumps.
    full: f64,
    /// How much of a whole mean there is: 0 to 1.
    weight: f64,
    /// Rates of the last seconds, the newest last.
    seconds: VecDeque<f64>,
}

impl RateVariation {
    /// Adds two neighbouring seconds with the rates `old` and `new`: the square of their difference, what that would be
    /// by chance, and the weight of this look.
    pub(super) fn add(&mut self, [old, new]: [f64; 2], found: f64, chance: f64, gain: f64) {
        let rate = f64::midpoint(old, new);
        let learn = |mean: &mut f64, new: f64| *mean += gain * (new - *mean);
        learn(&mut self.found, found);
        learn(&mut self.chance, chance);
        learn(&mut self.full, 2.0 * rate * (rate + CLUMPS));
        learn(&mut self.weight, 1.0);
    }

    /// Adds the rate of the last second, which may be 0.
    pub(super) fn see(&mut self, rate: f64) {
        self.seconds.push_back(rate);
        if self.seconds.len() > REMEMBERED {
            self.seconds.pop_front();
        }
    }

    /// The variance beyond that of arrivals with the dispersion `steady`, as a share of the rate's square: 0 to 1. Less
    /// while little is known.
    pub(super) fn share(&self, steady: f64) -> f64 {
        if self.full <= 0.0 {
            return 0.0;
        }
        let excess = self.found - (steady + DISPERSION_NOISE) * self.chance;
        (self.weight * excess / self.full).clamp(0.0, 1.0)
    }

    /// The highest rate of a second by the mean rate; infinite while little is known.
    pub(super) fn highest(&self) -> f64 {
        let (count, all) = (self.seconds.len(), self.seconds.iter().sum::<f64>());
        if count < KNOWN || all <= 0.0 {
            return f64::INFINITY;
        }
        let mut rates: Vec<f64> = self.seconds.iter().copied().collect();
        rates.sort_unstable_by(f64::total_cmp);
        let mut come = 0.0;
        let highest = rates.iter().find(|rate| {
            come += **rate;
            come >= HIGHEST * all
        });
        highest.map_or(f64::INFINITY, |highest| highest * count as f64 / all)
    }
}
