//! An objective that is missed: proof that a server can do less than its model says.
//!
//! The model may be wrong in ways that it cannot see: neighbours on the same cores, a CPU limit, a cost that no batch
//! shows. Whatever the reason, a server that refuses or answers late for seconds has shown what it can do: what it
//! answered in time. That bounds its capacity at once. The bound holds for a while after the last miss, then it is
//! eased; a bound that proves right again holds twice as long.
//!
//! Not every miss comes from the load. If the load falls, and what is answered in time falls with it while the share of
//! misses stays and the server is not busy, then more replicas would change nothing, and the bound is dropped.

use std::collections::VecDeque;

/// Seconds that are looked at together, and how many of them have to be bad. A single stall proves nothing.
const WINDOW: f64 = 4.0;
const BAD_SECONDS: usize = 3;

/// Share of requests that may be refused or late.
const ALLOWED: f64 = 0.01;

/// Standard deviations beyond the allowed number, and the least number, that are no chance.
const DEVIATIONS: f64 = 3.0;
const MISSES_MIN: f64 = 5.0;

/// Time constant in seconds with which the bound follows what is answered in time, while the objective is missed.
const FOLLOW_SECONDS: f64 = 5.0;

/// Seconds that a bound holds after the last miss: at first, and at most. A scaler that follows a capacity that is too high
/// scales down after minutes, and then the objective is missed again.
const HOLD: f64 = 15.0;
const HOLD_MAX: f64 = 3600.0;

/// Seconds for which a bound that has been dropped is remembered.
const REMEMBERED: f64 = 2.0 * HOLD_MAX;

/// Time constant in seconds with which an eased bound approaches the model, on a logarithmic scale.
const EASE_SECONDS: f64 = 30.0;

/// Least share of the model at which easing begins.
const LEAST: f64 = 1e-3;

/// An eased bound is dropped at this share of the model.
const EASED: f64 = 0.97;

/// Share of the time that the engine or the cores are busy, from which any miss comes from the load.
const BUSY: f64 = 0.7;

/// The load has fallen if it is below this share of what it was.
const FALLEN: f64 = 0.7;

/// Seconds for which a miss that does not come from the load is believed to be one.
const UNRELATED_SECONDS: f64 = 600.0;

/// What became of requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcomes {
    /// Answered within the objective; all answered ones if there is none.
    pub in_time: f64,
    /// Answered late, or refused because of overload.
    pub missed: f64,
}

impl Outcomes {
    fn all(self) -> f64 {
        self.in_time + self.missed
    }

    fn share(self) -> f64 {
        self.missed / self.all().max(f64::MIN_POSITIVE)
    }

    fn is_bad(self) -> bool {
        self.share() > ALLOWED
    }

    fn add(self, more: Self) -> Self {
        Self {
            in_time: self.in_time + more.in_time,
            missed: self.missed + more.missed,
        }
    }

    fn a_second(self, seconds: f64) -> Self {
        Self {
            in_time: self.in_time / seconds,
            missed: self.missed / seconds,
        }
    }
}

/// What the server is like while requests are answered or missed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerState {
    /// Mean tokens of a request.
    pub size: f64,
    /// The capacity in requests per second that the model computes.
    pub model: f64,
    /// Share of the time that the engine, or of the cores that the process, is busy.
    pub busy: f64,
}

/// A bound on the capacity.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// In tokens per second.
    rate: f64,
    /// The highest load with which the objective was missed, in requests per second.
    worst: Outcomes,
    /// Seconds since the objective was last missed.
    quiet: f64,
    /// Seconds for which the bound holds without another miss.
    hold: f64,
}

/// Follows whether the objective is kept.
#[derive(Debug)]
pub struct MissedObjective {
    /// Outcomes with their seconds, the newest last.
    looks: VecDeque<(f64, Outcomes)>,
    is_missed: bool,
    bound: Option<Bound>,
    /// How long the last bound held, and the seconds since it was dropped.
    last: (f64, f64),
    /// Seconds for which misses are known not to come from the load.
    unrelated: f64,
}

impl Default for MissedObjective {
    fn default() -> Self {
        Self::new()
    }
}

impl MissedObjective {
    /// Nothing has been seen.
    pub fn new() -> Self {
        Self {
            looks: VecDeque::new(),
            is_missed: false,
            bound: None,
            last: (0.0, f64::INFINITY),
            unrelated: 0.0,
        }
    }

    /// Adds the outcomes of the last `seconds`.
    pub fn look(&mut self, found: Outcomes, seconds: f64, server: ServerState) {
        self.looks.push_back((seconds, found));
        while self
            .looks
            .iter()
            .skip(1)
            .map(|(seconds, _)| seconds)
            .sum::<f64>()
            >= WINDOW
        {
            self.looks.pop_front();
        }
        self.unrelated = (self.unrelated - seconds).max(0.0);
        self.last.1 += seconds;
        let bad = self.bad();
        self.is_missed = bad.is_some();
        match (bad, self.bound) {
            (Some(bad), None) => self.begin(bad, server.size),
            (Some(bad), Some(bound)) => self.follow(bad, bound, seconds, server),
            (None, Some(bound)) => self.ease(bound, seconds, server),
            (None, None) => {}
        }
    }

    /// Whether the objective is missed now, because of the load.
    pub fn is_missed(&self) -> bool {
        self.is_missed && self.unrelated == 0.0
    }

    /// Whether the objective was missed lately for another reason than the load.
    pub fn is_unrelated(&self) -> bool {
        self.unrelated > 0.0
    }

    /// The bound in requests of `size` tokens per second, and the seconds since the objective was last missed.
    pub fn bound(&self, size: f64) -> Option<(f64, f64)> {
        let bound = self.bound.filter(|_| !self.is_unrelated())?;
        Some((bound.rate / size, bound.quiet))
    }

    /// The outcomes per second in the bad seconds of the window, if the objective is missed.
    fn bad(&self) -> Option<Outcomes> {
        let (mut all, mut bad) = (Outcomes::default(), Outcomes::default());
        let (mut bad_time, mut bad_seconds) = (0.0, 0);
        let (mut second, mut time) = (Outcomes::default(), 0.0);
        for (seconds, outcomes) in self.looks.iter().rev() {
            second = second.add(*outcomes);
            time += seconds;
            if time >= 0.9 {
                all = all.add(second);
                if second.is_bad() {
                    bad = bad.add(second);
                    bad_time += time;
                    bad_seconds += 1;
                }
                (second, time) = (Outcomes::default(), 0.0);
            }
        }
        let allowed = ALLOWED * all.all();
        let most = (allowed + DEVIATIONS * allowed.sqrt()).max(MISSES_MIN);
        let is_missed = bad_seconds >= BAD_SECONDS && all.missed >= most;
        is_missed.then(|| bad.a_second(bad_time))
    }

    fn begin(&mut self, bad: Outcomes, size: f64) {
        let (held, ago) = self.last;
        // The bound was eased too soon.
        let hold = if ago < REMEMBERED {
            (2.0 * held).clamp(HOLD, HOLD_MAX)
        } else {
            HOLD
        };
        self.bound = Some(Bound {
            rate: bad.in_time * size,
            worst: bad,
            quiet: 0.0,
            hold,
        });
    }

    fn follow(&mut self, bad: Outcomes, mut bound: Bound, seconds: f64, server: ServerState) {
        if bound.quiet > bound.hold {
            bound.hold = (2.0 * bound.hold).min(HOLD_MAX);
        }
        bound.quiet = 0.0;
        let gain = 1.0 - (-seconds / FOLLOW_SECONDS).exp();
        bound.rate += gain * (bad.in_time * server.size - bound.rate);
        let worst = bound.worst;
        if bad.all() > worst.all() {
            bound.worst = bad;
        }
        let falls_with_load = server.busy < BUSY
            && bad.all() < FALLEN * worst.all()
            && bad.in_time < FALLEN * worst.in_time
            && bad.share() > worst.share() / 2.0;
        if falls_with_load {
            self.unrelated = UNRELATED_SECONDS;
            self.bound = None;
        } else {
            self.bound = Some(bound);
        }
    }

    fn ease(&mut self, mut bound: Bound, seconds: f64, server: ServerState) {
        let model = server.model * server.size;
        bound.quiet += seconds;
        let all: Outcomes = self
            .looks
            .iter()
            .fold(Outcomes::default(), |sum, look| sum.add(look.1));
        let time: f64 = self.looks.iter().map(|look| look.0).sum();
        // What is answered in time now is possible.
        bound.rate = bound
            .rate
            .max(all.in_time / time.max(seconds) * server.size);
        if bound.quiet > bound.hold {
            let gap = (bound.rate.max(LEAST * model) / model).ln();
            bound.rate = model * (gap * (-seconds / EASE_SECONDS).exp()).exp();
        }
        if bound.rate >= EASED * model {
            self.last = (bound.hold, 0.0);
            self.bound = None;
        } else {
            self.bound = Some(bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: f64 = 10.0;

    /// Looks at a server that answers at most `real` of `offered` requests per second in time, for `seconds`.
    fn serve(missed: &mut MissedObjective, offered: f64, real: f64, model: f64, seconds: f64) {
        for _ in 0..(2.0 * seconds) as usize {
            let in_time = offered.min(real) / 2.0;
            let outcomes = Outcomes {
                in_time,
                missed: offered / 2.0 - in_time,
            };
            let server = ServerState {
                size: SIZE,
                model,
                busy: 0.5,
            };
            missed.look(outcomes, 0.5, server);
        }
    }

    fn rate(missed: &MissedObjective) -> Option<f64> {
        missed.bound(SIZE).map(|(rate, _)| rate)
    }

    #[test]
    fn what_is_answered_in_time_bounds_the_capacity_within_seconds() {
        let mut missed = MissedObjective::new();
        serve(&mut missed, 400.0, 500.0, 1000.0, 60.0);
        assert_eq!((rate(&missed), missed.is_missed()), (None, false));
        serve(&mut missed, 800.0, 500.0, 1000.0, 2.0);
        assert_eq!(rate(&missed), None, "two seconds prove nothing");
        serve(&mut missed, 800.0, 500.0, 1000.0, 1.5);
        let found = rate(&missed).unwrap();
        assert!(
            (found - 500.0).abs() < 15.0 && missed.is_missed(),
            "{found}"
        );
        // The machine becomes slower still.
        serve(&mut missed, 800.0, 200.0, 1000.0, 20.0);
        let found = rate(&missed).unwrap();
        assert!((found - 200.0).abs() < 10.0, "{found}");
    }

    #[test]
    fn the_bound_holds_for_a_while_and_is_then_eased() {
        let mut missed = MissedObjective::new();
        serve(&mut missed, 800.0, 500.0, 1000.0, 10.0);
        serve(&mut missed, 400.0, 500.0, 1000.0, 14.0);
        let found = rate(&missed).unwrap();
        assert!(
            (found - 500.0).abs() < 5.0 && !missed.is_missed(),
            "{found}"
        );
        serve(&mut missed, 400.0, 500.0, 1000.0, 30.0);
        let eased = rate(&missed).unwrap();
        assert!((600.0..900.0).contains(&eased), "{eased}");
        // More is answered in time, so more is possible.
        serve(&mut missed, 900.0, 1000.0, 1000.0, 5.0);
        assert!(rate(&missed).unwrap() >= 900.0);
        serve(&mut missed, 400.0, 500.0, 1000.0, 60.0);
        assert_eq!(rate(&missed), None);
        // It was eased too soon.
        serve(&mut missed, 800.0, 500.0, 1000.0, 10.0);
        serve(&mut missed, 400.0, 500.0, 1000.0, 29.0);
        let found = rate(&missed).unwrap();
        assert!(
            (found - 500.0).abs() < 15.0,
            "now it holds twice as long: {found}"
        );
    }

    #[test]
    fn a_stall_and_a_few_misses_prove_nothing() {
        let mut missed = MissedObjective::new();
        for _ in 0..20 {
            serve(&mut missed, 100.0, 1000.0, 1000.0, 8.0);
            serve(&mut missed, 100.0, 0.0, 1000.0, 1.5);
            assert_eq!(rate(&missed), None);
        }
        // One of a hundred is what the objective allows.
        serve(&mut missed, 100.0, 99.0, 1000.0, 60.0);
        assert_eq!(rate(&missed), None);
        // At two a second, the fifth miss is no chance.
        let mut missed = MissedObjective::new();
        serve(&mut missed, 2.0, 0.0, 1000.0, 2.0);
        assert_eq!(rate(&missed), None);
        serve(&mut missed, 2.0, 0.0, 1000.0, 2.0);
        assert_eq!(rate(&missed), Some(0.0));
    }

    /// A tenth of the requests is too large for the objective, whatever the load.
    #[test]
    fn misses_that_stay_when_the_load_falls_are_not_its_fault() {
        let mut missed = MissedObjective::new();
        let mut at = |offered: f64, seconds: f64| {
            serve(&mut missed, offered, 0.9 * offered, 5000.0, seconds);
            (rate(&missed), missed.is_unrelated())
        };
        let (bound, is_unrelated) = at(1000.0, 20.0);
        assert!((bound.unwrap() - 900.0).abs() < 1.0 && !is_unrelated);
        assert_eq!(at(500.0, 20.0), (None, true));
        assert_eq!(at(1000.0, 60.0), (None, true));
        // A server that is overloaded answers as much as before.
        let mut missed = MissedObjective::new();
        serve(&mut missed, 5000.0, 500.0, 5000.0, 20.0);
        serve(&mut missed, 1000.0, 500.0, 5000.0, 20.0);
        let found = rate(&missed).unwrap();
        assert!((found - 500.0).abs() < 1.0, "{found}");
    }
}
