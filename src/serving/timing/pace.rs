//! When to put the next batch together while the device runs one.
//!
//! Early enough that the device finds it when it is done, late enough that everything that
//! arrives meanwhile still gets in. How long a batch takes is learnt from those before it.

use std::time::Duration;

use tokio::time::Instant;

/// Steps an octave of tokens; the times of batches within one step are taken for equal.
const STEPS_AN_OCTAVE: f64 = 4.0;
const STEPS: usize = 80;

/// Weight of the newest batch in the mean.
const NEWEST: f64 = 0.2;

/// Putting together and enqueuing take at least this long: a copy, a graph, a copy.
const LEAD_MIN: Duration = Duration::from_micros(100);

/// A batch of a few queries takes less.
const SHORT: Duration = Duration::from_micros(500);

/// Lateness that nobody notices in an answer that took twenty times as long.
const NAP_MAX: Duration = Duration::from_micros(100);

/// What batches have taken so far.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Mean time by the size of a batch.
    batch: [Option<Duration>; STEPS],
    /// Mean time to put a batch together and submit it.
    submit: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            batch: [None; STEPS],
            submit: Duration::ZERO,
        }
    }

    /// A batch of `tokens` was done after `took`.
    pub(crate) fn done(&mut self, tokens: usize, took: Duration) {
        let mean = &mut self.batch[step(tokens)];
        *mean = Some(mean.map_or(took, |mean| blend(mean, took)));
    }

    /// It took so long to submit a batch.
    pub(crate) fn submitted(&mut self, took: Duration) {
        self.submit = blend(self.submit, took);
    }

    /// How long to look away from a batch of `tokens` that runs since `elapsed`: not at all from a
    /// short one, where every microsecond counts, nor around the end that is expected; else for a
    /// twentieth of its time, since the wait would burn a core for nothing.
    pub(crate) fn nap(&self, tokens: usize, elapsed: Duration) -> Duration {
        let ends = |expected: Duration| {
            let from = expected.saturating_sub(2 * NAP_MAX);
            (from..expected + SHORT).contains(&elapsed)
        };
        if elapsed < SHORT || self.batch[step(tokens)].is_some_and(ends) {
            Duration::ZERO
        } else {
            (elapsed / 20).min(NAP_MAX)
        }
    }

    /// When the batch after one of `tokens` that runs since `start` should be put together: at
    /// once while nothing is known.
    pub(crate) fn next_at(&self, start: Instant, tokens: usize) -> Instant {
        let Some(expected) = self.batch[step(tokens)] else {
            return start;
        };
        // Twice the time that submitting takes, and a tenth for what the guess is wrong by.
        let lead = (2 * self.submit).max(LEAD_MIN) + expected / 10;
        start + expected.saturating_sub(lead)
    }
}

fn step(tokens: usize) -> usize {
    let octaves = (tokens.max(1) as f64).log2();
    ((octaves * STEPS_AN_OCTAVE) as usize).min(STEPS - 1)
}

fn blend(mean: Duration, newest: Duration) -> Duration {
    mean.mul_f64(1.0 - NEWEST) + newest.mul_f64(NEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_next_batch_is_due_shortly_before_the_end_of_the_one_that_runs() {
        let mut pace = Pace::new();
        let start = Instant::now();
        assert_eq!(pace.next_at(start, 100), start, "nothing is known yet");
        for _ in 0..50 {
            pace.done(100, 10 * MS);
            pace.submitted(MS);
        }
        let due = pace.next_at(start, 101) - start;
        assert!(due > 6 * MS && due < 8 * MS, "{due:?}");
        assert_eq!(pace.next_at(start, 1), start, "other sizes are not known");
    }

    #[test]
    fn a_batch_shorter_than_its_preparation_is_followed_at_once() {
        let mut pace = Pace::new();
        let start = Instant::now();
        pace.done(8, LEAD_MIN);
        assert_eq!(pace.next_at(start, 8), start);
    }

    #[test]
    fn only_long_batches_are_looked_away_from() {
        let pace = Pace::new();
        assert_eq!(pace.nap(8, SHORT / 2), Duration::ZERO);
        assert_eq!(pace.nap(8, MS), MS / 20);
        assert_eq!(pace.nap(8, 100 * MS), NAP_MAX);
    }

    #[test]
    fn nobody_looks_away_around_the_expected_end() {
        let mut pace = Pace::new();
        pace.done(8, 10 * MS);
        for (elapsed, nap) in [
            (5 * MS, NAP_MAX),
            (10 * MS - NAP_MAX, Duration::ZERO),
            (10 * MS + SHORT / 2, Duration::ZERO),
            (11 * MS, NAP_MAX),
        ] {
            assert_eq!(pace.nap(8, elapsed), nap, "{elapsed:?}");
        }
        assert_eq!(pace.nap(1000, 10 * MS), NAP_MAX, "of another size");
    }

    #[test]
    fn a_change_is_learnt() {
        let mut pace = Pace::new();
        let start = Instant::now();
        pace.done(8, 100 * MS);
        for _ in 0..50 {
            pace.done(8, 10 * MS);
        }
        assert!(pace.next_at(start, 8) < start + 10 * MS);
    }

    #[test]
    fn every_size_has_its_step() {
        assert_eq!(step(0), 0);
        assert!(step(16) < step(20));
        assert_eq!(step(usize::MAX), STEPS - 1);
    }
}
