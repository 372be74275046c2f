//! Buckets: the shapes to which batches are rounded up.
//!
//! Graphs and algorithms of matrix products belong to a shape, so there must be few shapes. Rows added by
//! rounding are computed for nothing, so the shapes must be close together.

use intentd_kernels::Capacity;

/// Step between token counts up to eight steps. Beyond, there are eight steps per octave.
const TOKEN_STEP: usize = 16;
const TOKEN_STEPS_AN_OCTAVE: usize = 8;

/// The smallest bucket that holds a batch, at most `largest`. `None` for a batch larger than that.
pub(super) fn bucket(tokens: usize, sequences: usize, largest: Capacity) -> Option<Capacity> {
    if tokens > largest.tokens || sequences > largest.sequences {
        return None;
    }
    let tokens = round_tokens(tokens).min(largest.tokens);
    Some(Capacity {
        tokens,
        // Each sequence has at least one token, so there are at most as many sequences as tokens.
        sequences: round_sequences(sequences)
            .min(tokens)
            .min(largest.sequences),
    })
}

fn round_tokens(tokens: usize) -> usize {
    let octave = tokens.next_power_of_two() / 2;
    let step = (octave / TOKEN_STEPS_AN_OCTAVE).max(TOKEN_STEP);
    tokens.max(1).next_multiple_of(step)
}

/// 1, 2, 3, 4, 6, 8, 12, 16, ... Sequences are the rows of the last layer, a twelfth of BERT-base.
fn round_sequences(sequences: usize) -> usize {
    let power = sequences.max(1).next_power_of_two();
    if sequences <= power / 4 * 3 {
        power / 4 * 3
    } else {
        power
    }
    .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: Capacity = Capacity {
        tokens: 4096,
        sequences: 256,
    };

    #[test]
    fn a_bucket_holds_its_batch() {
        for tokens in 1..=LARGEST.tokens {
            for sequences in [1, 2, 5, 9, 100, 256] {
                if sequences > tokens {
                    continue;
                }
                let bucket = bucket(tokens, sequences, LARGEST).unwrap();
                assert!(bucket.tokens >= tokens && bucket.sequences >= sequences);
                assert!(bucket.tokens <= LARGEST.tokens && bucket.sequences <= LARGEST.sequences);
                let again = super::bucket(bucket.tokens, bucket.sequences, LARGEST);
                assert_eq!(again, Some(bucket), "a bucket's own bucket is itself");
            }
        }
        assert_eq!(bucket(4097, 1, LARGEST), None);
        assert_eq!(bucket(4096, 257, LARGEST), None);
    }

    #[test]
    fn the_largest_need_not_be_a_round_number() {
        let largest = Capacity {
            tokens: 500,
            sequences: 37,
        };
        assert_eq!(bucket(499, 37, largest), Some(largest));
    }

    #[test]
    fn rounding_up_wastes_less_than_a_tenth() {
        // Batches of 2 to 256 queries of 5 to 25 tokens, as in voice assistants.
        let (mut real, mut rounded) = (0, 0);
        let mut state: u64 = 1;
        for _ in 0..20 {
            for sequences in 2..=256 {
                let mut length = || {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    5 + (state >> 33) as usize % 21
                };
                let tokens = (0..sequences).map(|_| length()).sum();
                let largest = Capacity {
                    tokens: 8192,
                    ..LARGEST
                };
                real += tokens;
                rounded += bucket(tokens, sequences, largest).unwrap().tokens;
            }
        }
        let slack = rounded as f64 / real as f64 - 1.0;
        assert!(slack < 0.1, "{slack}");
    }

    #[test]
    fn there_are_few_buckets() {
        let tokens: std::collections::HashSet<usize> = (1..=4096).map(round_tokens).collect();
        assert!(tokens.len() <= 48, "{}", tokens.len());
        let sequences: std::collections::HashSet<usize> = (1..=256).map(round_sequences).collect();
        assert!(sequences.len() <= 16, "{}", sequences.len());
    }
}
