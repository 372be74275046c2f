//! Demand in replicas: how many servers like this one its load needs.

/// The trend adds, or takes away, at most as much as the load itself. Both, since what one replica takes over
/// another loses: with rises alone their sum would grow whenever one joins.
const TREND_MAX: f64 = 1.0;

/// No load takes more servers than that; what says so is wrong.
const REPLICAS_MAX: f64 = 1e6;

/// What the demand is made of. Requests are mean requests: a list or a long text counts as several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Requests a second that are offered, refused ones included.
    pub offered: f64,
    /// Requests a second by which that will have changed when a replica that is started now is ready.
    pub trend: f64,
    /// λ_slo: requests a second that one server answers within the objective.
    pub capacity: f64,
    /// ρ: part of the capacity that is to be used.
    pub utilization: f64,
    /// Requests that wait.
    pub waiting: f64,
    /// Requests that wait, on average, at full capacity: no backlog but how batches work.
    pub waiting_expected: f64,
    /// Seconds within which a backlog is to be gone.
    pub drain: f64,
}

impl Demand {
    /// Servers like this one: `offered/(ρ·λ_slo) + backlog/(λ_slo·drain)`.
    ///
    /// Adds up: the demands of several servers, each for its own share of the load, are the demand for
    /// all of it, whatever their number. Always finite and never negative.
    pub fn replicas(&self) -> f64 {
        let capacity = self.capacity.max(1e-9);
        // Not `clamp`, which lets pass what is no number.
        let bound = if self.offered > 0.0 {
            TREND_MAX * self.offered
        } else {
            0.0
        };
        let trend = self.trend.clamp(-bound, bound);
        let load = (self.offered + trend) / (self.utilization.max(0.01) * capacity);
        let backlog = (self.waiting - self.waiting_expected).max(0.0);
        let replicas = load + backlog / (capacity * self.drain.max(1.0));
        if replicas.is_nan() {
            0.0
        } else {
            replicas.clamp(0.0, REPLICAS_MAX)
        }
    }
}

/// A demand in whole percent, for targets that have to be integers (Knative's HPA class). Rounded up:
/// what is above zero stays so.
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
    fn a_load_of_five_servers_needs_five() {
        assert_eq!(IDLE.replicas(), 0.0);
        let offered = 4000.0;
        assert!((Demand { offered, ..IDLE }.replicas() - 5.0).abs() < 1e-12);
    }

    #[test]
    fn a_backlog_counts_beyond_what_always_waits() {
        let waiting = |waiting: f64| Demand { waiting, ..IDLE }.replicas();
        assert_eq!(waiting(10.0), 0.0);
        assert!((waiting(30_010.0) - 1.0).abs() < 1e-12);
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
    fn it_is_a_number_whatever_comes_in() {
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
