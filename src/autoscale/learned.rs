//! What a server learns about itself while it serves, beside its service curve.
//!
//! Only what is seen while the server keeps its objective teaches: an overloaded server refuses, and
//! what refusals cost or how late the last admitted request was says nothing about what it can do.

use super::queueing::{Host, Model, Objective, Service};

/// Octaves of rates, from one request a second on.
const RATES: usize = 24;

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// After so many seconds the cost of a request at a rate is believed no longer while another is known.
const STALE_SECONDS: f64 = 600.0;

/// Requests of an interval below which their cost is not to be told from everything else.
const REQUESTS_MIN: f64 = 25.0;

/// CPU time of a request outside of the engine, by the rate: at low rates each request wakes a thread,
/// at high ones a thread that is awake takes the next.
#[derive(Debug, Clone, Copy)]
pub struct HostCost {
    by_rate: [Option<Cost>; RATES],
    /// CPU seconds a second that the process takes without requests.
    idle: f64,
    now: f64,
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    rate: f64,
    at: f64,
}

impl HostCost {
    /// Nothing is known.
    pub fn new() -> Self {
        Self {
            by_rate: [None; RATES],
            idle: 0.0,
            now: 0.0,
        }
    }

    /// In `elapsed` seconds, `requests` were answered with `cpu` seconds.
    pub fn learn(&mut self, requests: f64, cpu: f64, elapsed: f64) {
        self.now += elapsed;
        if requests == 0.0 {
            self.idle += NEWEST * (cpu / elapsed - self.idle);
        }
        if requests < REQUESTS_MIN {
            return;
        }
        let rate = requests / elapsed;
        let seconds = (cpu - self.idle * elapsed).max(0.0) / requests;
        let cost = &mut self.by_rate[(rate.max(1.0).log2() as usize).min(RATES - 1)];
        let before = cost.map_or(seconds, |cost| cost.seconds);
        *cost = Some(Cost {
            seconds: before + NEWEST * (seconds - before),
            rate,
            at: self.now,
        });
    }

    /// CPU seconds a request, as seen at the highest rate lately; and that rate.
    pub fn request(&self) -> Option<(f64, f64)> {
        let known = || self.by_rate.iter().rev().flatten();
        let newest = known().map(|cost| cost.at).fold(0.0, f64::max);
        let fresh = known().find(|cost| newest - cost.at <= STALE_SECONDS);
        fresh.map(|cost| (cost.seconds, cost.rate))
    }
}

/// How much longer batches take than the engine needs for them and than the host's share explains:
/// others on the same cores.
#[derive(Debug, Clone, Copy)]
pub struct Contention(f64);

/// Share of the time that the engine has to be busy for its delays to say something.
const ENGINE_SHARE_MIN: f64 = 0.2;

const CONTENTION_MAX: f64 = 10.0;

impl Contention {
    /// No others.
    pub fn new() -> Self {
        Self(1.0)
    }

    /// In `elapsed` seconds, batches ran `spent` seconds of the `between` seconds between their starts
    /// and ends, while the host took `host_share` of the cores.
    pub fn learn(&mut self, spent: f64, between: f64, host_share: f64, elapsed: f64) {
        if spent < ENGINE_SHARE_MIN * elapsed {
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
    /// See [`Contention`].
    pub contention: f64,
    /// CPU seconds a request outside of the engine.
    pub host_request: f64,
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
    /// Tokens of the largest batch.
    pub batch_tokens: f64,
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
        let service = Service {
            setup: self.setup,
            request: self.token * asked.request_tokens,
        };
        Model {
            service: service.stretched(self.contention),
            batch_max: (asked.batch_tokens / asked.request_tokens)
                .min(asked.batch_texts)
                .max(1.0),
            host: Host {
                request: self.host_request,
                cores: asked.cores,
                is_shared: asked.shares_cores,
            },
        }
    }

    /// The objective for the mean latency.
    pub fn objective(&self, asked: &Asked) -> Option<Objective> {
        asked.objective.map(|seconds| Objective {
            seconds,
            overhead: self.overhead.min(seconds),
            tail: self.tail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_request_is_that_at_the_highest_rate() {
        let mut host = HostCost::new();
        assert_eq!(host.request(), None);
        host.learn(0.0, 0.001, 1.0);
        host.learn(100.0, 0.008, 1.0);
        host.learn(5000.0, 0.1, 1.0);
        host.learn(100.0, 0.008, 1.0);
        let (seconds, rate) = host.request().unwrap();
        assert!((seconds - 20e-6).abs() < 1e-6, "{seconds}");
        assert!((rate - 5000.0).abs() < 1e-9);
        for _ in 0..700 {
            host.learn(100.0, 0.008, 1.0);
        }
        let (seconds, _) = host.request().unwrap();
        assert!(seconds > 70e-6, "the requests of long ago were others");
        host.learn(1.0, 1.0, 1.0);
        assert!(host.request().unwrap().0 < 90e-6, "one is none");
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
            (contention.factor() - 2.0).abs() < 1e-3,
            "too little to say"
        );
    }
}
