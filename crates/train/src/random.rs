//! Every random choice of a run, drawn from one seed.
//!
//! Each purpose and epoch has its own ChaCha stream. An epoch therefore draws the same numbers whether or not
//! the run was interrupted before it, and a checkpoint need not store the state of a generator.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The purpose of a stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The choice of texts for validation.
    HoldOut = 0,
    /// The initial value of every weight.
    Weights = 1,
    /// The texts of an epoch: augmentation and order.
    Texts = 2,
    /// Dropout masks.
    Dropout = 3,
}

/// Returns the generator for one purpose in one epoch (0 for purposes that occur once in a run).
pub(crate) fn stream(seed: u64, purpose: Purpose, epoch: usize) -> ChaCha8Rng {
    const PURPOSES: u64 = 4;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64 * PURPOSES + purpose as u64);
    rng
}

/// Returns `true` with the given probability.
pub(crate) fn chance(rng: &mut impl Rng, probability: f64) -> bool {
    rng.random::<f64>() < probability
}

/// Picks one element. The slice must not be empty.
pub(crate) fn pick<'a, T>(rng: &mut impl Rng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// Shuffles the elements.
pub(crate) fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}

/// Draws `count` values from a normal distribution around 0.
pub(crate) fn normal(rng: &mut impl Rng, count: usize, deviation: f32) -> Vec<f32> {
    (0..count)
        .map(|_| {
            // Box-Muller; 1 - u lies in (0, 1], where the logarithm is finite.
            let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
            radius * (std::f32::consts::TAU * rng.random::<f32>()).cos() * deviation
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, purpose, epoch| stream(seed, purpose, epoch).next_u64();
        assert_eq!(draw(1, Purpose::Texts, 2), draw(1, Purpose::Texts, 2));
        assert_ne!(draw(1, Purpose::Texts, 2), draw(1, Purpose::Texts, 3));
        assert_ne!(draw(1, Purpose::Texts, 2), draw(1, Purpose::Dropout, 2));
        assert_ne!(draw(1, Purpose::Texts, 2), draw(2, Purpose::Texts, 2));
    }

    #[test]
    fn normal_has_the_asked_deviation() {
        let values = normal(&mut stream(3, Purpose::Weights, 0), 20_000, 0.02);
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 20_000.0;
        assert!((variance.sqrt() - 0.02).abs() < 0.001);
    }

    #[test]
    fn shuffle_keeps_every_element() {
        let mut items: Vec<usize> = (0..100).collect();
        shuffle(&mut stream(5, Purpose::Texts, 0), &mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
