//! The demand: the number of replicas like this one that its load needs.

/// The trend changes the load by at most this factor, up or down. It must work both ways, because load moves
/// between replicas: with rises alone, the sum over replicas would grow whenever one joins.
const TREND_MAX: f64 = 1.0;

/// The load counts as at most this factor times the capacity.
const LOAD_MAX: f64 = 10.0;

/// Upper bound of the demand. A larger value can only be an error.
const REPLICAS_MAX: f64 = 1e6;

/// The inputs of the demand. Rates are in mean requests: a list or a long text counts as several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Offered requests per second, including refused ones.
    pub offered: f64,
    /// Expected change of `offered`, in requests per second, until a replica started now is ready.
    pub trend: f64,
    /// λ_slo: requests per second that one server answers within the objective.
    pub capacity: f64,
    /// ρ: target share of the capacity.
    pub utilization: f64,
    /// Waiting requests.
    pub waiting: f64,
    /// Mean number of waiting requests at full capacity. Batching needs them; they are no backlog.
    pub waiting_expected: f64,
    /// Seconds within which a backlog should be drained.
    pub drain: f64,
}

impl Demand {
    /// The demand: `offered/(ρ·λ_slo) + backlog/(λ_slo·drain)`. The load counts as at most ten
    /// times the capacity.
    ///
    /// It is additive: the demands of several servers, each for its share of the load, sum up to the demand of
    /// the whole load. Always finite and never negative.
    pub fn replicas(&self) -> f64 {
        let load = self.load().min(LOAD_MAX) / self.utilization.max(0.01);
        let backlog = (self.waiting - self.waiting_expected).max(0.0);
        let replicas = load + backlog / (self.capacity.max(1e-9) * self.drain.max(1.0));
        if replicas.is_nan() {
            0.0
        } else {
            replicas.clamp(0.0, REPLICAS_MAX)
        }
    }

    /// The trend as far as it counts, in requests per second.
    pub fn bounded_trend(&self) -> f64 {
        // `clamp` panics where a bound is NaN.
        let bound = if self.offered > 0.0 {
            TREND_MAX * self.offered
        } else {
            0.0
        };
        self.trend.clamp(-bound, bound)
    }

    /// Whether the load counts as less than it is.
    pub fn is_bounded(&self) -> bool {
        self.load() > LOAD_MAX
    }

    /// The load by the capacity.
    fn load(&self) -> f64 {
        let load = (self.offered + self.bounded_trend()) / self.capacity.max(1e-9);
        if load.is_nan() { 0.0 } else { load }
    }
}

/// The demand in whole percent, for targets that have to be integers (Knative's HPA class). Rounded up, so that
/// it is 0 only without demand.
pub fn percent(replicas: f64) -> u64 {
    (replicas * 100.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Demand = Demand {
        offered: 0.0,
        trend: 0.0,
        capacity: 1000.0,
        utilization: 0.8,
        waiting: 0.0,
        waiting_expected: 10.0,
        drain: 30.0,
    };

    #[test]
    fn a_load_of_five_servers_needs_five_replicas() {
        assert_eq!(IDLE.replicas(), 0.0);
        let offered = 4000.0;
        assert!((Demand { offered, ..IDLE }.replicas() - 5.0).abs() < 1e-12);
    }

    #[test]
    fn a_backlog_counts_beyond_the_expected_waiting() {
        let waiting = |waiting: f64| Demand { waiting, ..IDLE }.replicas();
        assert_eq!(waiting(10.0), 0.0);
        assert!((waiting(30_010.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_load_beyond_ten_times_the_capacity_asks_for_no_more() {
        let offered = 1e6;
        let replicas = Demand { offered, ..IDLE }.replicas();
        assert!((replicas - 12.5).abs() < 1e-12, "{replicas}");
    }

    #[test]
    fn a_trend_at_most_doubles_and_never_goes_below_zero() {
        let offered = 800.0;
        let with = |trend: f64| {
            Demand {
                offered,
                trend,
                ..IDLE
            }
            .replicas()
        };
        assert!((with(400.0) - 1.5).abs() < 1e-12);
        assert!((with(9e9) - 2.0).abs() < 1e-12);
        assert!((with(-400.0) - 0.5).abs() < 1e-12);
        assert_eq!(with(-9e9), 0.0);
    }

    #[test]
    fn the_demand_is_finite_for_any_input() {
        let strange = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE];
        for offered in strange {
            for capacity in strange {
                for waiting in strange {
                    let demand = Demand {
                        offered,
                        capacity,
                        waiting,
                        ..IDLE
                    };
                    let replicas = demand.replicas();
                    assert!(replicas.is_finite() && replicas >= 0.0, "{demand:?}");
                }
            }
        }
    }

    #[test]
    fn percent_is_rounded_up() {
        assert_eq!(percent(0.0), 0);
        assert_eq!(percent(1e-6), 1);
        assert_eq!(percent(1.234), 124);
    }
}
