//! Whether any rate keeps the objective, without swinging between yes and no.
//!
//! Close to an objective that cannot be kept, small errors decide between a capacity of almost nothing and one without an
//! objective. So the answer changes only once it has mostly been the other one for a while.

use super::queueing::{CAPACITY_MIN, Capacity};

/// Time constant in seconds of the share of time in which the objective is feasible.
const SECONDS: f64 = 30.0;

/// At the first share or less the objective counts as infeasible, at the second or more as feasible. Between them, nothing
/// changes.
const SHARES: (f64, f64) = (0.4, 0.6);

/// The feasibility of the objective over time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feasibility {
    /// The share of time in which some rate kept it; none at first.
    share: Option<f64>,
    is_feasible: bool,
}

impl Feasibility {
    /// Nothing has been computed.
    pub(super) fn new() -> Self {
        Self {
            share: None,
            is_feasible: true,
        }
    }

    /// The capacity to publish after `elapsed` seconds with the computed one. `usable` is the rate without an objective.
    pub(super) fn settle(&mut self, computed: Capacity, usable: f64, elapsed: f64) -> Capacity {
        let now = f64::from(u8::from(computed.feasible));
        let gain = 1.0 - (-elapsed / SECONDS).exp();
        let share = self.share.map_or(now, |share| share + gain * (now - share));
        self.share = Some(share);
        let (low, high) = SHARES;
        self.is_feasible = share >= high || share > low && self.is_feasible;
        if computed.feasible == self.is_feasible {
            return computed;
        }
        Capacity {
            feasible: self.is_feasible,
            rate: if self.is_feasible {
                CAPACITY_MIN * usable
            } else {
                usable
            },
            ..computed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(feasible: bool) -> Capacity {
        Capacity {
            rate: if feasible { 60.0 } else { 1000.0 },
            feasible,
            rate_max: 1100.0,
        }
    }

    #[test]
    fn an_objective_on_the_edge_does_not_swing() {
        let mut feasibility = Feasibility::new();
        for look in 0..300 {
            let published = feasibility.settle(computed(look % 3 == 0), 1000.0, 2.0);
            if look > 60 {
                assert_eq!((published.feasible, published.rate), (false, 1000.0));
            }
        }
        let mut since = 0;
        while !feasibility.settle(computed(true), 1000.0, 2.0).feasible {
            since += 1;
        }
        assert!((5..30).contains(&since), "{since}");
    }

    #[test]
    fn what_was_computed_first_counts_at_once() {
        for feasible in [true, false] {
            let first = Feasibility::new().settle(computed(feasible), 1000.0, 2.0);
            assert_eq!(first, computed(feasible));
        }
        let mut feasibility = Feasibility::new();
        feasibility.settle(computed(true), 1000.0, 2.0);
        let next = feasibility.settle(computed(false), 1000.0, 2.0);
        assert_eq!((next.feasible, next.rate), (true, 50.0));
    }
}
