//! What a server learns about itself while it serves, beside its service curve.
//!
//! Only what is seen while the server keeps its objective teaches: an overloaded server refuses, and
//! what refusals cost or how late the last admitted request was says nothing about what it can do.

use super::queueing::{Host, Model, Objective, Service};
use crate::serving::PROMISE;

/// Steps of the batches' sharing by which costs are kept apart.
const STEPS: usize = 20;

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// After so many seconds a cost counts half.
const HALF_LIFE: f64 = 120.0;

/// What a cost counts however old it is: at a low load, the cost at a high one is known only from long ago.
const WEIGHT_MIN: f64 = 0.05;

/// Requests of an interval below which their cost is not to be told from everything else.
const REQUESTS_MIN: f64 = 25.0;

/// Costs that are closer together than that say nothing about what lies beyond.
const SPREAD_MIN: f64 = 0.05;

/// A request costs at least this part of the least that was seen, whatever the trend says.
const LEAST: f64 = 0.6;

/// How far beyond what was seen the trend is followed, by how far that reaches. Little: a server that is
/// believed too good misses its objective, one that is believed too bad only until there is more load to
/// learn from.
const BEYOND: f64 = 0.5;

/// Part of the capacity that has to have been seen as load for the cost at full load to be known.
const SEEN: f64 = 0.5;

/// Intervals after which half of that is.
const SEEN_HALF: f64 = 2.0;

/// What the highest rate at which a cost was seen is worth an interval later.
const RATE_KEPT: f64 = 0.995;

/// CPU time of a request outside of the engine, by how much it shares its batch.
///
/// A request that is alone in its batch wakes threads, and is read and answered by itself; of a hundred
/// that share one, a thread that is awake reads and answers many at once. So there is a cost a request and
/// a cost a batch, and both are read off a line over the sharing, `1 - 1/b` for b requests a batch.
#[derive(Debug, Clone, Copy)]
pub struct HostCost {
    by_sharing: [Option<Cost>; STEPS],
    /// CPU seconds a second that the process takes without requests.
    idle: f64,
    now: f64,
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    sharing: f64,
    rate: f64,
    at: f64,
    /// Intervals that it was seen in.
    seen: u32,
}

/// What is known of the cost of requests outside of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RequestCost {
    /// CPU seconds a request.
    pub request: f64,
    /// CPU seconds a batch.
    pub batch: f64,
}

impl RequestCost {
    /// Assumed until the first load is seen. Cautious: on a server's cores a request takes 30 to 90 µs
    /// (benches/results), and one that is believed too good misses its objective.
    pub const GUESS: Self = Self {
        request: 100e-6,
        batch: 0.0,
    };
}

impl Default for HostCost {
    fn default() -> Self {
        Self::new()
    }
}

impl HostCost {
    /// Nothing is known.
    pub fn new() -> Self {
        Self {
            by_sharing: [None; STEPS],
            idle: 0.0,
            now: 0.0,
        }
    }

    /// In `elapsed` seconds, `requests` were answered in `batches` with `cpu` seconds.
    pub fn learn(&mut self, requests: f64, batches: f64, cpu: f64, elapsed: f64) {
        self.now += elapsed;
        if requests == 0.0 {
            self.idle += NEWEST * (cpu / elapsed - self.idle);
        }
        if requests < REQUESTS_MIN {
            return;
        }
        let seconds = (cpu - self.idle * elapsed).max(0.0) / requests;
        let sharing = 1.0 - (batches / requests).clamp(0.0, 1.0);
        let step = ((sharing * STEPS as f64) as usize).min(STEPS - 1);
        let cost = &mut self.by_sharing[step];
        let before = cost.unwrap_or(Cost {
            seconds,
            sharing,
            rate: 0.0,
            at: self.now,
            seen: 0,
        });
        *cost = Some(Cost {
            seconds: before.seconds + NEWEST * (seconds - before.seconds),
            sharing: before.sharing + NEWEST * (sharing - before.sharing),
            rate: (requests / elapsed).max(RATE_KEPT * before.rate),
            at: self.now,
            seen: before.seen.saturating_add(1),
        });
    }

    fn known(&self) -> impl Iterator<Item = (Cost, f64)> {
        let known = || self.by_sharing.iter().flatten();
        let newest = known().map(|cost| cost.at).fold(0.0, f64::max);
        let weight = move |cost: &Cost| ((cost.at - newest) / HALF_LIFE).exp2().max(WEIGHT_MIN);
        known().map(move |cost| (*cost, weight(cost)))
    }

    /// How well it is known what requests cost at `rate`, from 0 to 1: by the highest rate of late at
    /// which that was seen, and how often.
    pub fn confidence(&self, rate: f64) -> f64 {
        let known = self.known();
        let Some((cost, _)) = known.max_by(|(a, _), (b, _)| a.rate.total_cmp(&b.rate)) else {
            return 0.0;
        };
        let seen = f64::from(cost.seen);
        let load = cost.rate / (SEEN * rate).max(f64::MIN_POSITIVE);
        load.min(1.0) * seen / (seen + SEEN_HALF)
    }

    /// What requests cost: weighted least squares over the sharing, followed a little beyond what was
    /// seen.
    pub fn cost(&self) -> Option<RequestCost> {
        let mut sums = [0.0_f64; 5];
        let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
        let mut least = f64::INFINITY;
        for (cost, weight) in self.known() {
            let (x, s) = (cost.sharing, cost.seconds);
            for (sum, value) in sums.iter_mut().zip([1.0, x, x * x, s, x * s]) {
                *sum += weight * value;
            }
            (first, last) = (first.min(x), last.max(x));
            least = least.min(s);
        }
        let [w, x, xx, s, xs] = sums;
        if w <= 0.0 {
            return None;
        }
        let (mean_x, mean_s) = (x / w, s / w);
        let variance = xx / w - mean_x * mean_x;
        let slope = if last - first > SPREAD_MIN && variance > 0.0 {
            ((xs / w - mean_x * mean_s) / variance).min(0.0)
        } else {
            0.0
        };
        let end = (last + BEYOND * (last - first)).min(1.0);
        let request = (mean_s + slope * (end - mean_x)).max(LEAST * least);
        let batch = (mean_s - request) / (1.0 - mean_x).max(1e-3);
        Some(RequestCost {
            request,
            batch: batch.max(0.0),
        })
    }
}

/// How much longer batches take than the engine needs for them and than the host's share explains:
/// others on the same cores.
#[derive(Debug, Clone, Copy)]
pub struct Contention(f64);

/// Share of the time that the engine has to be busy for its delays to say something.
const ENGINE_SHARE_MIN: f64 = 0.2;

const CONTENTION_MAX: f64 = 10.0;

/// What of it is forgotten in an interval that says nothing.
const QUIET: f64 = 0.01;

impl Default for Contention {
    fn default() -> Self {
        Self::new()
    }
}

impl Contention {
    /// No others.
    pub fn new() -> Self {
        Self(1.0)
    }

    /// In `elapsed` seconds, batches ran `spent` seconds of the `between` seconds between their starts
    /// and ends, while the host took `host_share` of the cores.
    pub fn learn(&mut self, spent: f64, between: f64, host_share: f64, elapsed: f64) {
        if spent < ENGINE_SHARE_MIN * elapsed {
            // Others may have gone meanwhile.
            self.0 += QUIET * (1.0 - self.0);
            return;
        }
        let found = between / spent * (1.0 - host_share.clamp(0.0, 0.95));
        self.0 += NEWEST * (found.clamp(1.0, CONTENTION_MAX) - self.0);
    }

    /// The factor: 1 without others.
    pub fn factor(&self) -> f64 {
        self.0
    }
}

/// All that the capacity is computed from, beside what is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// τ0 in seconds.
    pub setup: f64,
    /// α in seconds a token.
    pub token: f64,
    /// Tokens of the largest batch, which follows from how long it takes.
    pub batch_tokens: f64,
    /// See [`Contention`].
    pub contention: f64,
    /// What a request costs outside of the engine.
    pub host: RequestCost,
    /// What a byte of a large body adds to that.
    pub byte: f64,
    /// 99th percentile of what a request spends outside of queue and engine, in seconds.
    pub overhead: f64,
    /// κ.
    pub tail: f64,
}

/// What is asked, and of what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    /// Tokens of the mean request.
    pub request_tokens: f64,
    /// Texts of the mean request.
    pub request_texts: f64,
    /// Bytes of large bodies by all requests.
    pub request_bytes: f64,
    /// Texts of the largest batch.
    pub batch_texts: f64,
    /// Cores there are.
    pub cores: f64,
    /// Whether the engine computes on them.
    pub shares_cores: bool,
    /// The objective in seconds, if there is one.
    pub objective: Option<f64>,
}

impl Learned {
    /// The queue as it is understood.
    pub fn model(&self, asked: &Asked) -> Model {
        let by_tokens = self.batch_tokens / asked.request_tokens;
        let requests = by_tokens.min(asked.batch_texts / asked.request_texts);
        let service = Service {
            // A list that is larger than a batch takes several.
            setup: self.setup * (1.0 / requests).ceil().max(1.0),
            request: self.token * asked.request_tokens,
        };
        Model {
            service: service.stretched(self.contention),
            batch_max: requests.max(1.0),
            host: Host {
                request: self.host.request + self.byte * asked.request_bytes,
                batch: self.host.batch,
                cores: asked.cores,
                is_shared: asked.shares_cores,
            },
        }
    }

    /// The objective for the mean latency. What would take longer than the admission promises is refused,
    /// and so misses the objective as well.
    pub fn objective(&self, asked: &Asked) -> Option<Objective> {
        let promised = asked.objective.map(|seconds| PROMISE * seconds);
        promised.map(|seconds| Objective {
            seconds,
            overhead: self.overhead.min(seconds),
            tail: self.tail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 µs a request and 20 µs a batch of so many.
    fn at(host: &mut HostCost, requests: f64, seconds: u32) {
        for _ in 0..seconds {
            let batches = 1000.0 / requests;
            host.learn(1000.0, batches, 0.02 + 20e-6 * batches + 0.001, 1.0);
        }
    }

    #[test]
    fn costs_of_requests_and_of_batches_are_told_apart() {
        let mut host = HostCost::new();
        assert_eq!(host.cost(), None);
        for _ in 0..50 {
            host.learn(0.0, 0.0, 0.001, 1.0);
        }
        at(&mut host, 1.25, 30);
        let flat = host.cost().unwrap();
        assert!(
            (flat.request - 36e-6).abs() < 1e-6,
            "one load says no more: {flat:?}"
        );
        at(&mut host, 2.0, 30);
        at(&mut host, 10.0, 30);
        let RequestCost { request, batch } = host.cost().unwrap();
        assert!((request - 20e-6).abs() < 1e-6 && (batch - 20e-6).abs() < 1e-6);
        host.learn(1.0, 1.0, 1.0, 1.0);
        assert!(host.cost().unwrap().request < 21e-6, "one request is none");
        assert!(host.confidence(2000.0) > 0.9);
        assert!(host.confidence(20_000.0) < 0.1);
    }

    #[test]
    fn a_line_is_not_followed_far_beyond_what_was_seen() {
        let mut host = HostCost::new();
        at(&mut host, 1.0 / 0.9, 30);
        at(&mut host, 1.0 / 0.7, 30);
        let RequestCost { request, .. } = host.cost().unwrap();
        // Seen from 0.1 to 0.3.
        let at_the_end = 20e-6 + 0.6 * 20e-6;
        assert!((request - at_the_end).abs() < 1e-6, "{request}");
    }

    #[test]
    fn a_steep_line_does_not_end_below_zero() {
        let mut host = HostCost::new();
        for (batches, cost) in [(900.0, 100e-6), (600.0, 20e-6)] {
            for _ in 0..30 {
                host.learn(1000.0, batches, 1000.0 * cost, 1.0);
            }
        }
        let RequestCost { request, batch } = host.cost().unwrap();
        assert!(
            (11.9e-6..12.1e-6).contains(&request) && batch > 0.0,
            "{request} {batch}"
        );
    }

    #[test]
    fn only_what_the_host_does_not_explain_is_contention() {
        let mut contention = Contention::new();
        for _ in 0..50 {
            contention.learn(0.5, 0.7, 0.3, 1.0);
        }
        assert!((contention.factor() - 1.0).abs() < 1e-6);
        for _ in 0..50 {
            contention.learn(0.4, 0.8, 0.0, 1.0);
        }
        assert!((contention.factor() - 2.0).abs() < 1e-3);
        contention.learn(0.01, 1.0, 0.0, 1.0);
        assert!(
            (contention.factor() - 2.0).abs() < 0.02,
            "too little to say"
        );
        for _ in 0..1000 {
            contention.learn(0.0, 0.0, 0.0, 1.0);
        }
        assert!(contention.factor() < 1.01, "forgotten in the end");
    }
}
