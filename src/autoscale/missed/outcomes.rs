//! What became of requests, and what it proves.

/// Share of requests that may be refused or late.
pub(super) const ALLOWED: f64 = 0.01;

/// The load is as high as it was from this share of it.
pub(super) const AS_HIGH: f64 = 0.95;

/// A share of misses is clearly larger if it is larger by this factor, this much, and so many standard deviations.
const LARGER_FACTOR: f64 = 1.5;
const LARGER_BY: f64 = 0.05;
const LARGER_DEVIATIONS: f64 = 4.0;

/// What is answered in a few seconds is known to so many standard deviations.
const GOOD_DEVIATIONS: f64 = 2.0;

/// At least this part of the answers counts as in time. Load is refused, so answers that are late by the dozen may have
/// another reason. A replica that joins a fleet cannot tell, and would ask for so many more as those before it. If a part p
/// counts and ρ is the target utilization, each asks for 1/(ρ·p) replicas and half of that is new, so with ρ·p of a half or
/// less it would end only at the least capacity that is published.
const ANSWERS_WORTH: f64 = 2.0 / 3.0;
const WORTH_BY_UTILIZATION: f64 = 0.53;

/// What became of requests and records. Retries of refused requests count only if they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcomes {
    /// Seconds in which it became known.
    pub seconds: f64,
    /// Requests answered within the objective; all answered ones if there is none.
    pub in_time: f64,
    /// Requests answered later.
    pub late: f64,
    /// Requests refused because of overload, or not answered before their deadline where there is no objective.
    pub unanswered: f64,
    /// Tokens of the requests in time.
    pub in_time_tokens: f64,
    /// Tokens of the late ones.
    pub late_tokens: f64,
    /// Tokens of answered records of a log. Nobody waits for them, so they are neither in time nor late.
    pub record_tokens: f64,
    /// Tokens of all that was offered.
    pub offered_tokens: f64,
}

/// The server that is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Server {
    /// Tokens of the mean request.
    pub size: f64,
    /// The capacity without a bound, in tokens per second.
    pub model: f64,
    /// ρ: target share of the capacity.
    pub utilization: f64,
}

impl Server {
    /// The part of the answers that counts as in time at least.
    pub(super) fn answers_worth(self) -> f64 {
        let least = WORTH_BY_UTILIZATION / self.utilization.max(0.01);
        ANSWERS_WORTH.max(least).min(1.0)
    }
}

impl Outcomes {
    pub(super) fn missed(self) -> f64 {
        self.late + self.unanswered
    }

    pub(super) fn all(self) -> f64 {
        self.in_time + self.missed()
    }

    /// Share of requests that missed the objective.
    pub(super) fn share(self) -> f64 {
        self.missed() / self.all().max(f64::MIN_POSITIVE)
    }

    /// Tokens per second that were answered in time. `worth` is the part of the answers that counts as in time at least.
    pub(super) fn good(self, worth: f64) -> f64 {
        let answered = self.in_time_tokens + self.late_tokens;
        let good = self.in_time_tokens.max(worth * answered) + self.record_tokens;
        good / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The part of [`good`](Self::good) that is no chance.
    pub(super) fn surely_good(self, worth: f64) -> f64 {
        let error = GOOD_DEVIATIONS / (self.in_time + self.late).max(1.0).sqrt();
        self.good(worth) * (1.0 - error).max(0.0)
    }

    pub(super) fn add(self, more: Self) -> Self {
        Self {
            seconds: self.seconds + more.seconds,
            in_time: self.in_time + more.in_time,
            late: self.late + more.late,
            unanswered: self.unanswered + more.unanswered,
            in_time_tokens: self.in_time_tokens + more.in_time_tokens,
            late_tokens: self.late_tokens + more.late_tokens,
            record_tokens: self.record_tokens + more.record_tokens,
            offered_tokens: self.offered_tokens + more.offered_tokens,
        }
    }
}

/// What was answered while the objective was missed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// Tokens per second that were answered in time: in all seconds, or in those with misses if that is more, since little
    /// may have been asked before them.
    pub(super) good: f64,
    /// The part of it that is no chance.
    pub(super) surely_good: f64,
    /// Tokens per second that were offered.
    pub(super) offered: f64,
    /// Share of requests that missed the objective, and the number of all.
    pub(super) share: f64,
    pub(super) requests: f64,
    /// Whether most of those were refused: that is load's fault, while late answers may have another reason.
    pub(super) is_refused: bool,
}

impl Proof {
    /// Whether this proof may lower a bound that `before` set.
    pub(super) fn outweighs(self, before: Self) -> bool {
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
