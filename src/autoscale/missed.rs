//! An objective that is missed: proof that a server can do less than its model says.
//!
//! The model may be wrong in ways that it cannot see: neighbours on the same cores, a CPU limit, a cost that no batch
//! shows. Whatever the reason, a server that refuses or answers late for seconds has shown what it can do: what it
//! answered in time. That bounds its capacity at once. The bound holds for a while after the last miss and is then eased;
//! one that was eased too soon holds twice as long.
//!
//! What is answered in time is possible, too: while the objective is kept, the capacity is no less.
//!
//! Not every miss comes from the load: a text may be too long for the objective whatever else is asked. More replicas do
//! not help against that, and each would see the same share of misses at its smaller load. So a bound is lowered only by
//! as much load as it was found with, or by a clearly larger share of misses. Less in time at less load proves nothing.

use std::collections::VecDeque;

use self::outcomes::{ALLOWED, AS_HIGH, Proof};
pub use self::outcomes::{Outcomes, Server};

/// Seconds that are looked at together, and how many of them have to be bad. A single stall proves nothing.
const WINDOW: f64 = 6.0;
const BAD_SECONDS: f64 = 2.7;

/// A longer time between two looks counts as so many seconds, and so many looks are kept however long they are.
const SECONDS_MAX: f64 = 1.2;
const LOOKS_MIN: usize = 3;

/// More misses than allowed are no chance if they are so many standard deviations more, and at least so many.
const DEVIATIONS: f64 = 3.0;
const MISSES_MIN: f64 = 5.0;

/// Time constant in seconds with which the bound follows what is answered in time.
const FOLLOW_SECONDS: f64 = 5.0;

/// A rate in tokens says nothing about requests that are larger or smaller by this factor.
const SAME_SIZE: f64 = 1.5;

/// Time constant in seconds of the rate that keeps the objective, and the seconds for which it has to be kept.
const KEPT_SECONDS: f64 = 15.0;

/// Seconds that a bound holds after the last miss: at first, and at most.
const HOLD: f64 = 15.0;
const HOLD_MAX: f64 = 3600.0;

/// A bound was eased too soon if the next miss comes within so many seconds: scalers that follow a capacity that is too
/// high scale down after five minutes.
const TOO_SOON: f64 = 600.0;

/// Time constant in seconds with which an eased bound approaches the model, on a logarithmic scale.
const EASE_SECONDS: f64 = 30.0;

/// Least share of the model at which easing begins.
const LEAST: f64 = 1e-3;

/// An eased bound is dropped at this share of the model.
const EASED: f64 = 0.97;

/// A bound on the capacity.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// In tokens per second.
    rate: f64,
    /// Tokens of the mean request when it began.
    size: f64,
    proof: Proof,
    /// Seconds since the objective was last missed.
    quiet: f64,
    /// Seconds for which the bound holds without another miss.
    hold: f64,
}

/// A bound that was dropped.
#[derive(Debug, Clone, Copy)]
struct Dropped {
    /// That of the bound; none if its rate says nothing about the present model.
    size: Option<f64>,
    proof: Proof,
    hold: f64,
    /// Seconds since then.
    ago: f64,
}

/// Bounds of the capacity in tokens per second, by what was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The capacity is at least so much.
    pub least: f64,
    /// The capacity is at most so much, if the objective was missed.
    pub most: Option<f64>,
    /// Seconds since it was missed.
    pub quiet: f64,
}

/// Follows whether the objective is kept.
#[derive(Debug, Default)]
pub struct MissedObjective {
    /// The newest last.
    looks: VecDeque<Outcomes>,
    is_missed: bool,
    bound: Option<Bound>,
    dropped: Option<Dropped>,
    /// Tokens per second of requests that are answered in time, as an exponential mean.
    in_time: f64,
    /// Seconds since the objective was missed.
    kept_seconds: f64,
}

impl MissedObjective {
    /// Nothing has been seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds outcomes of a server.
    pub fn look(&mut self, found: Outcomes, server: Server) {
        let seconds = found.seconds;
        self.looks.push_back(found);
        let but_first = |looks: &VecDeque<Outcomes>| -> f64 {
            looks.iter().skip(1).map(|look| look.seconds).sum()
        };
        while self.looks.len() > LOOKS_MIN && but_first(&self.looks) >= WINDOW {
            self.looks.pop_front();
        }
        if let Some(dropped) = &mut self.dropped {
            dropped.ago += seconds;
        }
        if self
            .bound
            .is_some_and(|bound| !is_same(bound.size, server.size))
        {
            self.drop_bound(|bound| Some(bound.size));
        }
        let worth = server.answers_worth();
        let proof = self.proof(worth);
        self.is_missed = proof.is_some();
        self.kept_seconds = if self.is_missed {
            0.0
        } else {
            self.kept_seconds + seconds
        };
        let gain = 1.0 - (-seconds / KEPT_SECONDS).exp();
        self.in_time += gain * (found.in_time_tokens / seconds - self.in_time);
        self.bound = match (proof, self.bound) {
            (Some(proof), None) => Some(self.begin(proof, server)),
            (Some(proof), Some(bound)) => Some(follow(proof, bound, seconds)),
            (None, Some(bound)) => self.ease(bound, seconds, server),
            (None, None) => None,
        };
    }

    /// The model is another one. What was answered says nothing about it, but the share of misses may be the same.
    pub fn change_model(&mut self) {
        self.drop_bound(|_| None);
        *self = Self {
            dropped: self.dropped.map(|dropped| Dropped {
                size: None,
                ..dropped
            }),
            ..Self::new()
        };
    }

    fn drop_bound(&mut self, size: impl Fn(&Bound) -> Option<f64>) {
        if let Some(bound) = self.bound.take() {
            self.dropped = Some(Dropped {
                size: size(&bound),
                proof: bound.proof,
                hold: bound.hold,
                ago: 0.0,
            });
        }
    }

    /// Whether the objective is missed now.
    pub fn is_missed(&self) -> bool {
        self.is_missed
    }

    /// The bounds of the capacity.
    pub fn bounds(&self) -> Bounds {
        match self.bound {
            Some(Bound { rate, quiet, .. }) => Bounds {
                least: 0.0,
                most: Some(rate),
                quiet,
            },
            None => Bounds {
                least: if self.kept_seconds >= KEPT_SECONDS {
                    self.in_time
                } else {
                    0.0
                },
                most: None,
                quiet: self.kept_seconds,
            },
        }
    }

    /// What was answered in the window, if the objective is missed.
    fn proof(&self, worth: f64) -> Option<Proof> {
        let (mut all, mut bad) = (Outcomes::default(), Outcomes::default());
        let mut bad_seconds = 0.0;
        let mut second = Outcomes::default();
        for look in self.looks.iter().rev() {
            second = second.add(*look);
            if second.seconds >= 0.9 {
                all = all.add(second);
                if second.share() > ALLOWED {
                    bad = bad.add(second);
                    bad_seconds += second.seconds.min(SECONDS_MAX);
                }
                second = Outcomes::default();
            }
        }
        let allowed = ALLOWED * all.all();
        let most = (allowed + DEVIATIONS * allowed.sqrt()).max(MISSES_MIN);
        let is_missed = bad_seconds >= BAD_SECONDS && all.missed() >= most;
        is_missed.then(|| Proof {
            good: bad.good(worth).max(all.good(worth)),
            surely_good: all.surely_good(worth),
            offered: all.offered_tokens / all.seconds,
            share: all.share(),
            requests: all.all(),
            is_refused: all.unanswered >= all.late,
        })
    }

    fn begin(&self, proof: Proof, server: Server) -> Bound {
        let new = Bound {
            rate: proof.good,
            size: server.size,
            proof,
            quiet: 0.0,
            hold: HOLD,
        };
        match self.dropped {
            Some(dropped) if dropped.ago < TOO_SOON => {
                let hold = (2.0 * dropped.hold).min(HOLD_MAX);
                let is_comparable = dropped.size.is_some_and(|size| is_same(size, server.size));
                let is_by_load = !is_comparable && proof.is_refused;
                if is_by_load || proof.outweighs(dropped.proof) {
                    Bound { hold, ..new }
                } else {
                    let before = if is_comparable {
                        dropped.proof.good
                    } else {
                        server.model
                    };
                    Bound {
                        rate: proof.good.max(before),
                        proof: dropped.proof,
                        hold,
                        ..new
                    }
                }
            }
            _ => new,
        }
    }

    fn ease(&mut self, mut bound: Bound, seconds: f64, server: Server) -> Option<Bound> {
        let model = server.model;
        bound.quiet += seconds;
        let all = self
            .looks
            .iter()
            .fold(Outcomes::default(), |sum, look| sum.add(*look));
        // What is answered in time now is possible.
        bound.rate = bound.rate.max(all.surely_good(server.answers_worth()));
        if bound.quiet > bound.hold && model > 0.0 {
            let gap = (bound.rate.max(LEAST * model) / model).ln();
            bound.rate = model * (gap * (-seconds / EASE_SECONDS).exp()).exp();
        }
        if bound.rate < EASED * model {
            return Some(bound);
        }
        self.dropped = Some(Dropped {
            size: Some(bound.size),
            proof: bound.proof,
            hold: bound.hold,
            ago: 0.0,
        });
        None
    }
}

/// Whether a rate in tokens for requests of one size says something about requests of the other.
fn is_same(size: f64, other: f64) -> bool {
    other < SAME_SIZE * size && size < SAME_SIZE * other
}

fn follow(proof: Proof, mut bound: Bound, seconds: f64) -> Bound {
    if bound.quiet > bound.hold {
        // It was being eased.
        bound.hold = (2.0 * bound.hold).min(HOLD_MAX);
    }
    bound.quiet = 0.0;
    let gain = 1.0 - (-seconds / FOLLOW_SECONDS).exp();
    if proof.outweighs(bound.proof) {
        bound.rate += gain * (proof.good - bound.rate);
        let is_as_high = proof.offered >= AS_HIGH * bound.proof.offered;
        let offered = proof.offered.max(bound.proof.offered);
        // Otherwise a load that falls step by step would be as high as before at each step.
        bound.proof = if is_as_high {
            Proof { offered, ..proof }
        } else {
            proof
        };
    } else {
        bound.rate = bound.rate.max(proof.surely_good);
    }
    bound
}

mod outcomes;
#[cfg(test)]
mod tests;
