//! The search for the highest rate that holds an objective: a bisection over rates.

/// The search ends below this share of the saturated rate: no rate holds the objective.
const LOWEST_SHARE: f64 = 0.01;

/// The factor to the next rate while every rate so far has held.
const STEP_UP: f64 = 1.25;

/// The search ends above this multiple of the saturated rate: an objective that holds there holds at any
/// rate.
const HIGHEST_SHARE: f64 = 8.0;

/// A search for the highest rate that holds an objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    next: f64,
    lowest: f64,
    highest: f64,
    precision: f64,
    good: Option<f64>,
    bad: Option<f64>,
}

/// The next step of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Measure whether this rate holds.
    Try(f64),
    /// The search is over. The highest rate that held, or `None` when not even the lowest did.
    Done(Option<f64>),
}

impl Search {
    /// Starts just below `saturated`, the rate at which the server answers under full load. The search
    /// ends when the highest rate that holds and the lowest that does not are within `precision` (0.05 is
    /// 5 %).
    pub fn new(saturated: f64, precision: f64) -> Self {
        Self {
            next: saturated * 0.8,
            lowest: saturated * LOWEST_SHARE,
            highest: saturated * HIGHEST_SHARE,
            precision,
            good: None,
            bad: None,
        }
    }

    /// Returns the next step.
    pub fn step(&self) -> Step {
        let done = match (self.good, self.bad) {
            (Some(good), Some(bad)) => bad <= good * (1.0 + self.precision),
            (None, Some(bad)) => bad <= self.lowest,
            (Some(good), None) => good >= self.highest,
            _ => false,
        };
        // A server that answers nothing has no saturated rate.
        let has_no_rate = self.next.is_nan() || self.next <= 0.0;
        match done || has_no_rate {
            true => Step::Done(self.good),
            false => Step::Try(self.next),
        }
    }

    /// Reports whether the rate of the last step held.
    pub fn tell(&mut self, holds: bool) {
        let rate = self.next;
        if holds {
            self.good = Some(rate);
        } else {
            self.bad = Some(rate);
        }
        self.next = match (self.good, self.bad) {
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (Some(good), None) => good * STEP_UP,
            (None, _) => rate / 2.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(saturated: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(saturated, 0.05);
        for tries in 0..100 {
            match search.step() {
                Step::Try(rate) => search.tell(rate <= limit),
                Step::Done(rate) => return (rate, tries),
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn the_limit_is_found_below_and_above_the_saturated_rate() {
        for limit in [20.0, 130.0, 799.0, 801.0, 1000.0, 1800.0] {
            let (found, tries) = search(1000.0, limit);
            let found = found.unwrap();
            assert!(
                found <= limit && found * 1.05 >= limit * 0.999,
                "{limit}: {found}"
            );
            assert!(tries <= 14, "{limit}: {tries}");
        }
    }

    #[test]
    fn a_search_without_a_rate_that_holds_ends_with_none() {
        assert_eq!(search(1000.0, 0.0).0, None);
        assert_eq!(search(0.0, 0.0), (None, 0));
        assert_eq!(search(f64::NAN, 0.0), (None, 0));
        let (everything, tries) = search(1000.0, f64::INFINITY);
        assert!(everything.unwrap() >= 8000.0 && tries < 20);
    }
}
