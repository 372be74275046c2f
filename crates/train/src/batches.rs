//! Batches of texts of similar length in random order.

use rand::Rng;

use super::random::shuffle;

/// Batches in a bucket, whose texts are sorted by length. More would reduce padding and randomness.
const BATCHES_PER_BUCKET: usize = 24;

/// Divides texts, given by their lengths, into batches of at most `size` indices each.
///
/// Texts are shuffled, sorted by length within large buckets, cut, and the batches shuffled again.
pub(crate) fn cut(rng: &mut impl Rng, lengths: &[usize], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    shuffle(rng, &mut order);
    for bucket in order.chunks_mut(size * BATCHES_PER_BUCKET) {
        // Stable, so that equal lengths keep their random order.
        bucket.sort_by_key(|index| lengths[*index]);
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    shuffle(rng, &mut batches);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn every_text_is_in_one_batch_of_similar_lengths() {
        let lengths: Vec<usize> = (0..1000).map(|i| 3 + i * 7 % 40).collect();
        let batches = cut(&mut stream(1, Purpose::Texts, 0), &lengths, 16);
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        let padded: usize = batches
            .iter()
            .map(|batch| batch.len() * batch.iter().map(|i| lengths[*i]).max().unwrap_or(0))
            .sum();
        assert!(
            padded * 10 < lengths.iter().sum::<usize>() * 12,
            "padding stays below 20 %"
        );
    }
}
