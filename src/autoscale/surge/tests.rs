use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

const LOOK: f64 = 0.5;
const SIZE: f64 = 10.0;

/// Draws Poisson arrivals.
struct Poisson(ChaCha8Rng);

impl Poisson {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The number of arrivals in a look at `rate` per second.
    fn count(&mut self, rate: f64) -> f64 {
        let (mut time, mut count) = (0.0, -1.0);
        while time < LOOK {
            let uniform = 1.0 - self.0.random::<f64>();
            time -= uniform.ln() / rate.max(1e-9);
            count += 1.0;
        }
        count
    }
}

fn add(load: &mut Smoothed, count: f64, replica: f64) -> f64 {
    let counts = Flows {
        offered: count,
        tokens: count * SIZE,
        ..Flows::default()
    };
    load.add(counts, LOOK, SIZE, replica);
    load.rates(SIZE).offered
}

/// The published rate at each look of `seconds`, at a rate and with a count that follow from time.
fn published(seconds: u32, replica: f64, mut arrivals: impl FnMut(f64) -> f64) -> Vec<f64> {
    let mut load = Smoothed::new();
    let looks = (0..2 * seconds).map(|look| f64::from(look) * LOOK);
    looks
        .map(|time| add(&mut load, arrivals(time), replica))
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Seconds from the step to nine tenths of it, and the highest rate within 30 s by the new one.
fn step(before: f64, after: f64, replica: f64, seed: u64) -> (f64, f64) {
    let mut poisson = Poisson::new(seed);
    let rates = published(150, replica, |time| {
        poisson.count(if time < 90.0 { before } else { after })
    });
    let later = &rates[180..240];
    let there = before + 0.9 * (after - before);
    let reached = later.iter().position(|rate| *rate >= there).unwrap();
    let top = later.iter().copied().fold(0.0, f64::max);
    ((reached + 1) as f64 * LOOK, top / after)
}

#[test]
fn a_step_is_believed_within_seconds() {
    for (after, seconds, overshoot) in [(20.0, 5.0, 1.10), (200.0, 3.0, 1.05), (2000.0, 3.0, 1.03)]
    {
        for before in [0.0, after / 5.0] {
            let tries = || (0..15).map(|seed| step(before, after, after / 2.5, seed));
            let reached = median(tries().map(|(reached, _)| reached).collect());
            let top = median(tries().map(|(_, top)| top).collect());
            assert!(reached <= seconds, "{before} to {after}: {reached} s");
            assert!(top <= overshoot, "{before} to {after}: {top}");
        }
    }
}

#[test]
fn a_small_step_is_believed_as_soon_as_it_stands_out() {
    let reached = median(
        (0..15)
            .map(|seed| step(200.0, 300.0, 150.0, seed).0)
            .collect(),
    );
    assert!(reached <= 10.0, "{reached}");
}

#[test]
fn a_steady_load_is_published_steadily() {
    for (rate, most) in [(20.0, 0.05), (200.0, 0.02)] {
        for replica in [rate / 2.0, rate, 2.0 * rate] {
            let mut poisson = Poisson::new(3);
            let rates = published(720, replica, |_| poisson.count(rate));
            let rates = &rates[240..];
            let middle = mean(rates);
            let squares: Vec<f64> = rates.iter().map(|rate| (rate - middle).powi(2)).collect();
            let deviation = mean(&squares).sqrt() / rate;
            assert!((middle / rate - 1.0).abs() < 0.02, "{middle}");
            assert!(deviation < most, "{rate} a second: {deviation}");
        }
    }
}

/// What comes at once and no more is no new rate, however much it is.
#[test]
fn bursts_count_as_what_they_are() {
    let bursts: [(f64, f64); 4] = [(1000.0, 60.0), (50.0, 1.0), (500.0, 10.0), (200.0, 4.0)];
    for (count, period) in bursts {
        let rate = count / period;
        let rates = published(960, rate / 2.0, |time| {
            if time % period == 0.0 { count } else { 0.0 }
        });
        let found = mean(&rates[720..]);
        assert!((found / rate - 1.0).abs() < 0.05, "{found} for {rate}");
    }
}

/// The article's load, from rest.
#[test]
fn fifty_at_once_each_second_are_fifty_a_second_within_three() {
    let rates = published(60, 10.0, |time| if time % 1.0 == 0.0 { 50.0 } else { 0.0 });
    let first = rates.iter().position(|rate| *rate >= 45.0).unwrap();
    assert!((first + 1) as f64 * LOOK <= 4.0, "{first}");
    assert!(rates.iter().all(|rate| *rate <= 55.0), "{rates:?}");
}

#[test]
fn a_load_that_ends_is_not_followed_further() {
    let rates = published(60, 50.0, |time| {
        if (20.0..23.0).contains(&time) {
            100.0
        } else {
            0.0
        }
    });
    let top = rates.iter().copied().fold(0.0, f64::max);
    assert!((150.0..=200.0).contains(&top), "{top}");
    assert!(rates[49] < 40.0, "2 s after its end: {}", rates[49]);
}

/// The sum of replicas between which a balancer spreads `rate`, at each look, as the mean of many tries. Each should get
/// `worth`. `replicas` is their number before and after 120 s; those that leave take along what they remember.
fn sums(rate: f64, worth: f64, replicas: (u32, u32)) -> Vec<f64> {
    const TRIES: u32 = 16;
    let mut sums = vec![0.0; 400];
    for seed in 0..TRIES {
        let mut poisson = Poisson::new(seed.into());
        let mut loads: Vec<Smoothed> = (0..8).map(|_| Smoothed::new()).collect();
        for (look, sum) in sums.iter_mut().enumerate() {
            let count = if look < 240 { replicas.0 } else { replicas.1 };
            for load in loads.iter_mut().take(count as usize) {
                let found = add(load, poisson.count(rate / f64::from(count)), worth);
                *sum += found / f64::from(TRIES);
            }
        }
    }
    sums
}

#[test]
fn the_sum_over_replicas_stands_still() {
    // A replica's worth, the numbers before and after, and seconds until the sum is right again.
    for (rate, worth, replicas, seconds, most) in [
        (20.0, 7.4, (3, 4), 0, 0.10),
        (200.0, 74.0, (3, 4), 0, 0.05),
        (2000.0, 740.0, (3, 4), 0, 0.05),
        (2000.0, 740.0, (3, 2), 5, 0.05),
        (200.0, 74.0, (3, 2), 5, 0.05),
        // Five more requests in two seconds stand out little.
        (20.0, 7.4, (3, 2), 20, 0.10),
        // Replicas that join while there are too few.
        (1000.0, 200.0, (1, 2), 5, 0.05),
        (1000.0, 200.0, (1, 4), 5, 0.05),
        (1000.0, 200.0, (2, 8), 5, 0.05),
    ] {
        let sums = sums(rate, worth, replicas);
        for second in (90..115).chain(120 + seconds..195) {
            let found = mean(&sums[2 * second..2 * second + 10]) / rate - 1.0;
            let case = format!("{rate}/s, {replicas:?}, second {second}");
            assert!(found.abs() < most, "{case}: {found}");
        }
    }
}

#[test]
fn dispersion_is_learned() {
    let mut poisson = Poisson::new(5);
    let mut load = Smoothed::new();
    for _ in 0..1200 {
        let count = poisson.count(200.0);
        add(&mut load, count, 1e9);
    }
    assert!(load.burstiness(0.0) < 0.003);
    // Each second differs from the others by up to 60 %.
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut rate = 0.0;
    for look in 0..1200 {
        if look % 2 == 0 {
            rate = 200.0 * (0.4 + 1.2 * random.random::<f64>());
        }
        let count = poisson.count(rate);
        add(&mut load, count, 1e9);
    }
    let found = load.burstiness(0.0);
    let highest = load.highest();
    assert!((1.4..1.9).contains(&highest), "{highest}, truly 1.6");
    assert!((0.05..0.2).contains(&found), "{found}, truly 0.12");
    assert!(load.burstiness(3.0) < found, "sizes explain some");
    // The same at a fifth of the rate: it varies as much, measured by itself.
    for look in 0..120 {
        if look % 2 == 0 {
            rate = 40.0 * (0.4 + 1.2 * random.random::<f64>());
        }
        let count = poisson.count(rate);
        add(&mut load, count, 1e9);
    }
    let less = load.burstiness(0.0);
    assert!((0.05..0.2).contains(&less), "{less}, truly 0.12");
    // Five at once every ten seconds are a clump, whatever the rate.
    let mut load = Smoothed::new();
    for look in 0..1200 {
        add(&mut load, if look % 20 == 0 { 5.0 } else { 0.0 }, 1e9);
    }
    assert!(load.burstiness(0.0) < 0.1);
}
