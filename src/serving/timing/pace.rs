//! When to assemble the next batch while the device runs one.
//!
//! Early enough that it is ready when the device finishes, and late enough to include everything that arrives
//! meanwhile. The time of a batch is learned from earlier ones.

use std::time::Duration;

use tokio::time::Instant;

/// Size steps per octave of tokens. Batches within one step count as equally long.
const STEPS_AN_OCTAVE: f64 = 4.0;
const STEPS: usize = 80;

/// Weight of the newest batch in the mean.
const NEWEST: f64 = 0.2;

/// Minimum time to assemble and enqueue a batch: a copy, a graph, a copy.
const LEAD_MIN: Duration = Duration::from_micros(100);

/// Batches of a few queries take less than this.
const SHORT: Duration = Duration::from_micros(500);

/// The longest pause between polls. Negligible, because the batch has then run at least twenty times as long.
const PAUSE_MAX: Duration = Duration::from_micros(100);

/// Learned times of batches and of their submission.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Mean time by batch size.
    batch: [Option<Duration>; STEPS],
    /// Mean time to assemble and submit a batch.
    submit: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            batch: [None; STEPS],
            submit: Duration::ZERO,
        }
    }

    /// Learns that a batch of `tokens` took `took`.
    pub(crate) fn done(&mut self, tokens: usize, took: Duration) {
        let mean = &mut self.batch[step(tokens)];
        *mean = Some(mean.map_or(took, |mean| blend(mean, took)));
    }

    /// Learns that submitting a batch took `took`.
    pub(crate) fn submitted(&mut self, took: Duration) {
        self.submit = blend(self.submit, took);
    }

    /// How long to pause before polling a batch of `tokens` that has run for `elapsed`. Zero for a short batch,
    /// where every microsecond counts, and around the expected end. Otherwise a twentieth of the elapsed time,
    /// because polling would keep a core busy.
    pub(crate) fn pause(&self, tokens: usize, elapsed: Duration) -> Duration {
        let ends = |expected: Duration| {
            let from = expected.saturating_sub(2 * PAUSE_MAX);
            (from..expected + SHORT).contains(&elapsed)
        };
        if elapsed < SHORT || self.batch[step(tokens)].is_some_and(ends) {
            Duration::ZERO
        } else {
            (elapsed / 20).min(PAUSE_MAX)
        }
    }

    /// When to assemble the batch after one of `tokens` that has run since `start`: at once while its time is
    /// unknown.
    pub(crate) fn next_at(&self, start: Instant, tokens: usize) -> Instant {
        let Some(expected) = self.batch[step(tokens)] else {
            return start;
        };
        // Twice the submission time, and a tenth for the error of the estimate.
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
    fn the_next_batch_is_due_shortly_before_the_current_one_ends() {
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
    fn after_a_very_short_batch_the_next_is_due_at_once() {
        let mut pace = Pace::new();
        let start = Instant::now();
        pace.done(8, LEAD_MIN);
        assert_eq!(pace.next_at(start, 8), start);
    }

    #[test]
    fn only_long_batches_are_polled_with_pauses() {
        let pace = Pace::new();
        assert_eq!(pace.pause(8, SHORT / 2), Duration::ZERO);
        assert_eq!(pace.pause(8, MS), MS / 20);
        assert_eq!(pace.pause(8, 100 * MS), PAUSE_MAX);
    }

    #[test]
    fn there_is_no_pause_around_the_expected_end() {
        let mut pace = Pace::new();
        pace.done(8, 10 * MS);
        for (elapsed, pause) in [
            (5 * MS, PAUSE_MAX),
            (10 * MS - PAUSE_MAX, Duration::ZERO),
            (10 * MS + SHORT / 2, Duration::ZERO),
            (11 * MS, PAUSE_MAX),
        ] {
            assert_eq!(pace.pause(8, elapsed), pause, "{elapsed:?}");
        }
        assert_eq!(pace.pause(1000, 10 * MS), PAUSE_MAX, "of another size");
    }

    #[test]
    fn a_change_is_learned() {
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
