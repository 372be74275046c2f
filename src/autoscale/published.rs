//! The capacity that is published: what the model computes, within what was seen.

use super::estimator::Estimate;
use super::missed::Bounds;
use super::queueing::CAPACITY_MIN;

/// The published capacity of a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Published {
    /// λ_slo in requests per second; 0 if nothing is known.
    pub(super) rate: f64,
    /// Its bounds in requests per second; none if no rate keeps the objective, which is then missed at any load.
    pub(super) bounds: Option<Bounds>,
}

impl Published {
    /// The capacity by an estimate and bounds in tokens per second, for requests of `size` tokens.
    pub(super) fn new(estimate: Option<&Estimate>, seen: Bounds, size: f64) -> Self {
        let Some(estimate) = estimate else {
            return Self {
                rate: 0.0,
                bounds: None,
            };
        };
        let computed = estimate.capacity;
        if !computed.feasible {
            return Self {
                rate: computed.rate,
                bounds: None,
            };
        }
        let lowest = CAPACITY_MIN * estimate.usable;
        let least = seen.least / size;
        let most = seen.most.map(|most| (most / size).max(lowest));
        let rate = computed.rate.max(least).min(most.unwrap_or(f64::INFINITY));
        Self {
            rate,
            bounds: Some(Bounds {
                least,
                most,
                ..seen
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::estimator::Estimate;
    use super::super::learned::{Learned, RequestCost};
    use super::super::queueing::Capacity;
    use super::*;

    /// A model that says 1,000/s, and 2,000/s without an objective.
    fn estimate(feasible: bool) -> Estimate {
        Estimate {
            capacity: Capacity {
                rate: 1000.0,
                feasible,
                rate_max: 2100.0,
            },
            usable: 2000.0,
            learned: Learned {
                setup: 1e-3,
                token: 1e-5,
                batch_tokens: 8192.0,
                contention: 1.0,
                host: RequestCost::GUESS,
                byte: 0.0,
                overhead: 0.0,
                tail: 2.0,
            },
            in_flight: 4.0,
            waiting: 1.0,
            batch_max: 64.0,
            confidence: 1.0,
        }
    }

    /// The rate with bounds in tokens per second, for requests of ten tokens.
    fn rate(feasible: bool, least: f64, most: Option<f64>) -> f64 {
        let seen = Bounds {
            least,
            most,
            quiet: 3.0,
        };
        Published::new(Some(&estimate(feasible)), seen, 10.0).rate
    }

    #[test]
    fn what_was_seen_bounds_the_model() {
        assert_eq!(rate(true, 0.0, None), 1000.0);
        assert_eq!(
            rate(true, 5000.0, None),
            1000.0,
            "less in time proves nothing"
        );
        assert_eq!(rate(true, 12_000.0, None), 1200.0);
        assert_eq!(rate(true, 0.0, Some(4000.0)), 400.0);
        assert_eq!(rate(true, 0.0, Some(40_000.0)), 1000.0);
        assert_eq!(
            rate(true, 0.0, Some(0.0)),
            100.0,
            "a twentieth of what is usable"
        );
    }

    #[test]
    fn an_infeasible_objective_is_missed_at_any_load() {
        assert_eq!(rate(false, 12_000.0, None), 1000.0);
        assert_eq!(rate(false, 0.0, Some(4000.0)), 1000.0);
    }

    #[test]
    fn bounds_are_in_requests() {
        let seen = Bounds {
            least: 70.0,
            most: Some(4000.0),
            quiet: 3.0,
        };
        let found = Published::new(Some(&estimate(true)), seen, 10.0).bounds;
        let expected = Bounds {
            least: 7.0,
            most: Some(400.0),
            quiet: 3.0,
        };
        assert_eq!(found, Some(expected));
        let unknown = Published::new(None, seen, 10.0);
        assert_eq!((unknown.rate, unknown.bounds), (0.0, None));
    }
}
