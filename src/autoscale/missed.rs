//! An objective that is missed: proof that a server can do less than its model says.
//!
//! The model may be wrong in ways that it cannot see: neighbours on the same cores, a CPU limit, a cost that no batch
//! shows. Whatever the reason, a server that refuses or answers late for seconds has shown what it can do: what it
//! answered in time. That bounds its capacity at once. The bound holds for a while after the last miss and is then eased;
//! one that was eased too soon holds twice as long.
//!
//! What is answered is possible, too: while the objective is kept, the capacity is no less.
//!
//! Not every miss comes from the load: a text may be too long for the objective whatever else is asked. More replicas do
//! not help against that, and each would see the same share of misses at its smaller load. So a bound is lowered only by
//! as much load as it was found with, or by a clearly larger share of misses. Less in time at less load proves nothing.

use std::collections::VecDeque;

/// Seconds that are looked at together, and how many of them have to be bad. A single stall proves nothing.
const WINDOW: f64 = 6.0;
const BAD_SECONDS: f64 = 2.7;

/// A longer time between two looks counts as so many seconds.
const SECONDS_MAX: f64 = 1.2;

/// Share of requests that may be refused or late.
const ALLOWED: f64 = 0.01;

/// More misses than allowed are no chance if they are so many standard deviations more, and at least so many.
const DEVIATIONS: f64 = 3.0;
const MISSES_MIN: f64 = 5.0;

/// Time constant in seconds with which the bound follows what is answered in time.
const FOLLOW_SECONDS: f64 = 5.0;

/// The load is as high as it was from this share of it.
const AS_HIGH: f64 = 0.95;

/// A share of misses is clearly larger if it is larger by this factor, this much, and so many standard deviations.
const LARGER_FACTOR: f64 = 1.5;
const LARGER_BY: f64 = 0.05;
const LARGER_DEVIATIONS: f64 = 4.0;

/// What is answered in a few seconds is known to so many standard deviations.
const GOOD_DEVIATIONS: f64 = 2.0;

/// At least this part of the answers counts as in time. Load is refused, so answers that are late by the dozen may have
/// another reason. A replica that joins a fleet cannot tell, and would ask for so many more as those before it. Below a
/// half, divided by the usual target utilization, that would never end.
const ANSWERS_WORTH: f64 = 2.0 / 3.0;

/// A bound says nothing about requests that are larger or smaller than its own by this factor.
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

/// What became of requests. Retries of refused requests count only if they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcomes {
    /// Seconds in which it became known.
    pub seconds: f64,
    /// Requests answered within the objective; all answered ones if there is none.
    pub in_time: f64,
    /// Requests answered later.
    pub late: f64,
    /// Requests refused because of overload.
    pub refused: f64,
    /// Tokens of the requests in time.
    pub in_time_tokens: f64,
    /// Tokens of the late ones.
    pub late_tokens: f64,
    /// Tokens of all that was offered.
    pub offered_tokens: f64,
}

impl Outcomes {
    fn missed(self) -> f64 {
        self.late + self.refused
    }

    fn all(self) -> f64 {
        self.in_time + self.missed()
    }

    /// Share of requests that missed the objective.
    fn share(self) -> f64 {
        self.missed() / self.all().max(f64::MIN_POSITIVE)
    }

    /// Tokens per second that were answered in time.
    fn good(self) -> f64 {
        let answered = self.in_time_tokens + self.late_tokens;
        let good = self.in_time_tokens.max(ANSWERS_WORTH * answered);
        good / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The part of [`good`](Self::good) that is no chance.
    fn surely_good(self) -> f64 {
        let error = GOOD_DEVIATIONS / (self.in_time + self.late).max(1.0).sqrt();
        self.good() * (1.0 - error).max(0.0)
    }

    fn add(self, more: Self) -> Self {
        Self {
            seconds: self.seconds + more.seconds,
            in_time: self.in_time + more.in_time,
            late: self.late + more.late,
            refused: self.refused + more.refused,
            in_time_tokens: self.in_time_tokens + more.in_time_tokens,
            late_tokens: self.late_tokens + more.late_tokens,
            offered_tokens: self.offered_tokens + more.offered_tokens,
        }
    }
}

/// What was answered while the objective was missed.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// Tokens per second that were answered in time: in all seconds, or in those with misses if that is more, since little
    /// may have been asked before them.
    good: f64,
    /// The part of it that is no chance.
    surely_good: f64,
    /// Tokens per second that were offered.
    offered: f64,
    /// Share of requests that missed the objective, and the number of all.
    share: f64,
    requests: f64,
}

impl Proof {
    /// Whether this proof may lower a bound that `before` set.
    fn outweighs(self, before: Self) -> bool {
        self.offered >= AS_HIGH * before.offered || self.has_more_misses(before)
    }

    /// Whether a clearly larger share missed the objective.
    fn has_more_misses(self, before: Self) -> bool {
        let more = self.share - before.share;
        let expected = before.share.max(ALLOWED);
        let variance = expected / self.requests.max(1.0) + expected / before.requests.max(1.0);
        self.share > LARGER_FACTOR * before.share
            && more > LARGER_BY
            && more > LARGER_DEVIATIONS * variance.sqrt()
    }
}

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
    size: f64,
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
    /// Tokens per second that are answered in time, as an exponential mean.
    answered: f64,
    /// Seconds since the objective was missed.
    kept_seconds: f64,
}

impl MissedObjective {
    /// Nothing has been seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds outcomes. `size` is the mean tokens of a request, and `model` the capacity without a bound, in tokens per
    /// second.
    pub fn look(&mut self, found: Outcomes, size: f64, model: f64) {
        let seconds = found.seconds;
        self.looks.push_back(found);
        while self
            .looks
            .iter()
            .skip(1)
            .map(|look| look.seconds)
            .sum::<f64>()
            >= WINDOW
        {
            self.looks.pop_front();
        }
        if let Some(dropped) = &mut self.dropped {
            dropped.ago += seconds;
        }
        let is_same = |other: f64| other < SAME_SIZE * size && size < SAME_SIZE * other;
        self.bound = self.bound.filter(|bound| is_same(bound.size));
        self.dropped = self.dropped.filter(|dropped| is_same(dropped.size));
        let proof = self.proof();
        self.is_missed = proof.is_some();
        self.kept_seconds = if self.is_missed {
            0.0
        } else {
            self.kept_seconds + seconds
        };
        let gain = 1.0 - (-seconds / KEPT_SECONDS).exp();
        self.answered += gain * (found.good() - self.answered);
        self.bound = match (proof, self.bound) {
            (Some(proof), None) => Some(self.begin(proof, size)),
            (Some(proof), Some(bound)) => Some(follow(proof, bound, seconds)),
            (None, Some(bound)) => self.ease(bound, seconds, model),
            (None, None) => None,
        };
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
                    self.answered
                } else {
                    0.0
                },
                most: None,
                quiet: self.kept_seconds,
            },
        }
    }

    /// What was answered in the window, if the objective is missed.
    fn proof(&self) -> Option<Proof> {
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
            good: bad.good().max(all.good()),
            surely_good: all.surely_good(),
            offered: all.offered_tokens / all.seconds,
            share: all.share(),
            requests: all.all(),
        })
    }

    fn begin(&self, proof: Proof, size: f64) -> Bound {
        let new = Bound {
            rate: proof.good,
            size,
            proof,
            quiet: 0.0,
            hold: HOLD,
        };
        match self.dropped {
            Some(dropped) if dropped.ago < TOO_SOON => {
                let hold = (2.0 * dropped.hold).min(HOLD_MAX);
                if proof.outweighs(dropped.proof) {
                    Bound { hold, ..new }
                } else {
                    Bound {
                        rate: proof.good.max(dropped.proof.good),
                        proof: dropped.proof,
                        hold,
                        ..new
                    }
                }
            }
            _ => new,
        }
    }

    fn ease(&mut self, mut bound: Bound, seconds: f64, model: f64) -> Option<Bound> {
        bound.quiet += seconds;
        let all = self
            .looks
            .iter()
            .fold(Outcomes::default(), |sum, look| sum.add(*look));
        // What is answered in time now is possible.
        bound.rate = bound.rate.max(all.surely_good());
        if bound.quiet > bound.hold && model > 0.0 {
            let gap = (bound.rate.max(LEAST * model) / model).ln();
            bound.rate = model * (gap * (-seconds / EASE_SECONDS).exp()).exp();
        }
        if bound.rate < EASED * model {
            return Some(bound);
        }
        self.dropped = Some(Dropped {
            size: bound.size,
            proof: bound.proof,
            hold: bound.hold,
            ago: 0.0,
        });
        None
    }
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

#[cfg(test)]
mod tests;
