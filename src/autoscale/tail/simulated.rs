//! Arrivals of a simulation: Poisson within a second, at rates that vary from second to second.

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// How requests differ from equal ones that arrive at random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variation {
    /// Coefficient of variation of request sizes: standard deviation divided by mean.
    pub sizes: f64,
    /// Variance of the rate from second to second, as a share of its square; 0 for Poisson arrivals.
    pub rate: f64,
    /// The highest rate of a second by the mean rate; infinite if unknown.
    pub highest: f64,
}

impl Default for Variation {
    fn default() -> Self {
        Self {
            sizes: 0.0,
            rate: 0.0,
            highest: f64::INFINITY,
        }
    }
}

/// Burstiness that counts: a rate that varies by 3 % disappears in the noise.
pub(super) const BURSTINESS_MIN: f64 = 1e-3;

/// The highest rate of a second is at least so many mean rates: there is always one above the mean.
pub(super) const HIGHEST_MIN: f64 = 1.05;

/// Coefficient of variation of sizes at most.
const SIZES_MAX: f64 = 3.0;

/// A request of a simulation.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimulatedRequest {
    /// When it arrives, in seconds.
    pub(super) arrival: f64,
    /// Its size; 1 on average.
    pub(super) size: f64,
}

/// A log-normal variable with mean 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogNormal {
    sigma: f64,
}

impl LogNormal {
    pub(super) fn with_variance(variance: f64) -> Self {
        Self {
            sigma: (1.0 + variance).ln().sqrt(),
        }
    }

    fn draw(self, random: &mut ChaCha8Rng) -> f64 {
        if self.sigma == 0.0 {
            return 1.0;
        }
        self.at(normal(random))
    }

    /// The value at so many standard deviations of the normal distribution.
    fn at(self, normal: f64) -> f64 {
        (self.sigma * normal - self.sigma * self.sigma / 2.0).exp()
    }

    /// Quantiles in an order that is mixed but always the same, with mean 1.
    pub(super) fn quantiles(self, count: usize) -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        // Means of parts of a large sample stand for them.
        const PART: usize = 200;
        let mut sample: Vec<f64> = (0..count * PART)
            .map(|_| self.at(normal(&mut random)))
            .collect();
        sample.sort_unstable_by(f64::total_cmp);
        let mut means: Vec<f64> = sample
            .chunks(PART)
            .map(|part| part.iter().sum::<f64>() / PART as f64)
            .collect();
        let mean = means.iter().sum::<f64>() / count as f64;
        means.iter_mut().for_each(|value| *value /= mean);
        means.shuffle(&mut random);
        means
    }
}

/// Rates of mean 1, of which none is above `highest`. What is cut from some is added to the others: the distribution of
/// real rates often ends long before that of a log-normal variable.
pub(super) fn bounded(mut rates: Vec<f64>, highest: f64) -> Vec<f64> {
    let highest = highest.max(HIGHEST_MIN);
    for _ in 0..rates.len() {
        let cut: f64 = rates.iter().map(|rate| (rate - highest).max(0.0)).sum();
        if cut <= 1e-9 {
            break;
        }
        let below: f64 = rates.iter().filter(|rate| **rate < highest).sum();
        for rate in &mut rates {
            *rate = if *rate < highest {
                *rate * (1.0 + cut / below)
            } else {
                highest
            };
        }
    }
    rates
}

/// Box–Muller transform.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (radius, angle) = (uniform(random), uniform(random));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Above 0, at most 1.
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    1.0 - random.random::<f64>()
}

/// Arrivals of requests with log-normal sizes. Within a second they are Poisson; the rate of a second is log-normal.
pub(super) struct SimulatedArrivals<'a> {
    random: &'a mut ChaCha8Rng,
    rate: f64,
    sizes: LogNormal,
    /// The rates of seconds by `rate`, which repeat; none if all are the same.
    seconds: Vec<f64>,
    /// The number of the present second, and its end.
    second: usize,
    until: f64,
    next: f64,
}

impl<'a> SimulatedArrivals<'a> {
    /// Arrivals whose rate differs in each of so many seconds, if it varies.
    pub(super) fn new(
        random: &'a mut ChaCha8Rng,
        rate: f64,
        variation: Variation,
        seconds: usize,
    ) -> Self {
        let is_bursty = variation.rate > BURSTINESS_MIN;
        let sizes = variation.sizes.min(SIZES_MAX);
        Self {
            random,
            rate,
            sizes: LogNormal::with_variance(sizes * sizes),
            seconds: if is_bursty {
                let quantiles = LogNormal::with_variance(variation.rate).quantiles(seconds);
                bounded(quantiles, variation.highest)
            } else {
                Vec::new()
            },
            second: 0,
            until: if is_bursty { 1.0 } else { f64::INFINITY },
            next: 0.0,
        }
    }

    pub(super) fn draw(&mut self) -> SimulatedRequest {
        let mut left = -uniform(self.random).ln() / self.rate;
        let mut factor = self.factor();
        while self.next + left / factor > self.until {
            // The part of the pause before the end of the second passes at its rate.
            left -= (self.until - self.next) * factor;
            self.next = self.until;
            self.until += 1.0;
            self.second += 1;
            factor = self.factor();
        }
        self.next += left / factor;
        SimulatedRequest {
            arrival: self.next,
            size: self.sizes.draw(self.random),
        }
    }

    /// The rate of the present second by the mean one.
    pub(super) fn factor(&self) -> f64 {
        match self.seconds.len() {
            0 => 1.0,
            count => self.seconds[self.second % count].max(1e-3),
        }
    }
}
