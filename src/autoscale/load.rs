//! The offered load, smoothed: requests per second and their size.

use crate::serving::Counts;

/// Time constant of the published rates in seconds. Two scrapes at the usual 15 s see most of a change.
const RATE_SECONDS: f64 = 15.0;

/// Time constant of the slower rate, in seconds. The slope is the difference of both.
const SLOW_SECONDS: f64 = 60.0;

/// Time constant of the mean request size in seconds.
const SIZE_SECONDS: f64 = 60.0;

/// Tokens of a request before the first one: a short question.
const TOKENS: f64 = 16.0;

/// Offered requests and tokens count at most as this factor times what was answered or, if that is more, what
/// could have been answered. A client may retry thousands of times per second, and a refused list costs its
/// sender nothing. Scalers do not grow faster than this between two readings.
const OFFERED_MAX: f64 = 10.0;

/// Seconds without a request after which the load is zero.
const IDLE_SECONDS: f64 = 60.0;

/// An exponentially weighted mean of a rate. It begins at zero, so that a new replica gains load at the same pace
/// as the others lose it, and the sum stays constant.
#[derive(Debug, Clone, Copy, Default)]
struct Ewma(f64);

impl Ewma {
    fn add(&mut self, rate: f64, elapsed: f64, seconds: f64) {
        self.0 += (1.0 - (-elapsed / seconds).exp()) * (rate - self.0);
    }
}

/// The smoothed rates of a server.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Offered requests per second, including refused ones.
    pub offered: f64,
    /// Answered requests per second, including server errors.
    pub accepted: f64,
    /// Requests per second that were refused because of the load or the server's state.
    pub refused: f64,
    /// The part of `refused` that was refused because of overload.
    pub overloaded: f64,
    /// Requests per second that failed because of a server error.
    pub failed: f64,
    /// Offered tokens per second.
    pub tokens: f64,
    /// Offered bytes of large bodies per second.
    pub large: f64,
    /// Change of `offered` per second, in requests per second.
    pub slope: f64,
}

/// The state of the smoothed load.
#[derive(Debug)]
pub struct OfferedLoad {
    before: Counts,
    offered: Ewma,
    accepted: Ewma,
    refused: Ewma,
    overloaded: Ewma,
    failed: Ewma,
    tokens: Ewma,
    large: Ewma,
    slow: Ewma,
    /// Requests of known size: their number, texts, tokens and squared tokens. Older ones count less.
    sized: [f64; 4],
    /// Bytes of large bodies whose requests were counted in an earlier update.
    late_large_bytes: f64,
    /// Discounted requests that are to be subtracted in a later update: at most 0.
    late_discounts: f64,
    /// Seconds since the last request.
    idle_seconds: f64,
}

impl OfferedLoad {
    /// No load. `counts` are the counters so far.
    pub fn new(counts: Counts) -> Self {
        Self {
            before: counts,
            offered: Ewma::default(),
            accepted: Ewma::default(),
            refused: Ewma::default(),
            overloaded: Ewma::default(),
            failed: Ewma::default(),
            tokens: Ewma::default(),
            large: Ewma::default(),
            slow: Ewma::default(),
            sized: [0.0; 4],
            late_large_bytes: 0.0,
            late_discounts: 0.0,
            idle_seconds: IDLE_SECONDS,
        }
    }

    /// Updates the load with the counters after `elapsed` seconds. `capacity` is in requests per second.
    pub fn update(&mut self, counts: Counts, elapsed: f64, capacity: f64) {
        if elapsed <= 0.0 {
            return;
        }
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let before = std::mem::replace(&mut self.before, counts);
        let discounted = since(counts.discounted, before.discounted);
        // A request may arrive before this update and be discounted after it.
        let arrived = since(counts.offered, before.offered) - discounted + self.late_discounts;
        self.late_discounts = arrived.min(0.0);
        let arrived = arrived.max(0.0);
        let failed = since(counts.failed, before.failed);
        let ended = since(counts.answered, before.answered) + failed;
        let size = self.learn_sizes(&counts, &before, elapsed);
        let (mut offered, mut tokens) = (arrived, arrived * size);
        // Without a model, nothing is answered and there is no capacity to compare with.
        if capacity > 0.0 {
            let most = OFFERED_MAX * ended.max(capacity * elapsed);
            offered = offered.min(most);
            tokens = tokens.min(most * self.request_tokens());
        }
        let add = |ewma: &mut Ewma, count: f64| ewma.add(count / elapsed, elapsed, RATE_SECONDS);
        add(&mut self.offered, offered);
        add(&mut self.tokens, tokens);
        self.late_large_bytes += since(counts.large, before.large);
        let mut large = 0.0;
        if arrived > 0.0 {
            // Limited like the requests.
            large = std::mem::take(&mut self.late_large_bytes) * offered / arrived;
        }
        add(&mut self.large, large);
        add(&mut self.accepted, ended);
        add(&mut self.refused, since(counts.shed, before.shed));
        add(
            &mut self.overloaded,
            since(counts.overloaded, before.overloaded),
        );
        add(&mut self.failed, failed);
        self.slow.add(offered / elapsed, elapsed, SLOW_SECONDS);
        self.idle_seconds = if arrived > 0.0 {
            0.0
        } else {
            self.idle_seconds + elapsed
        };
        if self.idle_seconds >= IDLE_SECONDS {
            // The first request after an idle minute must not bring back the old load.
            for ewma in [
                &mut self.offered,
                &mut self.tokens,
                &mut self.large,
                &mut self.accepted,
                &mut self.refused,
                &mut self.overloaded,
                &mut self.failed,
                &mut self.slow,
            ] {
                *ewma = Ewma::default();
            }
        }
    }

    /// Learns the sizes of new requests, and returns their mean tokens.
    fn learn_sizes(&mut self, counts: &Counts, before: &Counts, elapsed: f64) -> f64 {
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let new = [
            since(counts.sized, before.sized),
            since(counts.texts, before.texts),
            since(counts.tokens, before.tokens),
            since(counts.squares, before.squares),
        ];
        if new[0] == 0.0 {
            // Time without requests says nothing about their size.
            return self.request_tokens();
        }
        let kept = (-elapsed / SIZE_SECONDS).exp();
        for (sum, new) in self.sized.iter_mut().zip(new) {
            *sum = *sum * kept + new;
        }
        new[2] / new[0]
    }

    /// Tokens of the mean request.
    pub fn request_tokens(&self) -> f64 {
        let [count, _, tokens, _] = self.sized;
        if count > 0.0 {
            (tokens / count).max(1.0)
        } else {
            TOKENS
        }
    }

    /// Texts of the mean request.
    pub fn request_texts(&self) -> f64 {
        let [count, texts, ..] = self.sized;
        if count > 0.0 {
            (texts / count).max(1.0)
        } else {
            1.0
        }
    }

    /// Coefficient of variation of request sizes: standard deviation divided by mean.
    pub fn spread(&self) -> f64 {
        let [count, _, _, squares] = self.sized;
        let mean = self.request_tokens();
        if count > 1.0 {
            (squares / count / (mean * mean) - 1.0)
                .max(0.0)
                .sqrt()
                .min(3.0)
        } else {
            0.0
        }
    }

    /// The current rates. Exactly zero after a minute without requests.
    pub fn rates(&self) -> Rates {
        if self.idle_seconds >= IDLE_SECONDS {
            return Rates::default();
        }
        Rates {
            offered: self.offered.0,
            accepted: self.accepted.0,
            refused: self.refused.0,
            overloaded: self.overloaded.0,
            failed: self.failed.0,
            tokens: self.tokens.0,
            large: self.large.0,
            // On a ramp, each rate lags by its time constant.
            slope: (self.offered.0 - self.slow.0) / (SLOW_SECONDS - RATE_SECONDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers `rate` requests per second of `tokens` each, for `seconds`.
    fn answer(load: &mut OfferedLoad, counts: &mut Counts, rate: u64, tokens: u64, seconds: u32) {
        for _ in 0..2 * seconds {
            counts.offered += rate / 2;
            counts.answered += rate / 2;
            counts.sized += rate / 2;
            counts.tokens += rate / 2 * tokens;
            counts.squares += rate / 2 * tokens * tokens;
            load.update(*counts, 0.5, 100.0);
        }
    }

    #[test]
    fn rates_follow_the_load_and_are_zero_a_minute_after_it() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        assert_eq!(load.rates(), Rates::default());
        answer(&mut load, &mut counts, 100, 20, 60);
        let rates = load.rates();
        assert!((98.0..=100.0).contains(&rates.offered), "{rates:?}");
        assert!((rates.tokens / rates.offered - 20.0).abs() < 1e-6);
        assert!((load.request_tokens() - 20.0).abs() < 1e-6);
        answer(&mut load, &mut counts, 0, 0, 61);
        assert_eq!(load.rates(), Rates::default());
        assert!((load.request_tokens() - 20.0).abs() < 1e-6);
    }

    #[test]
    fn large_requests_are_more_work() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        answer(&mut load, &mut counts, 100, 10, 120);
        let small = load.rates().tokens;
        answer(&mut load, &mut counts, 100, 320, 120);
        assert!(load.rates().tokens / small > 30.0);
        assert!(load.request_tokens() > 250.0);
    }

    #[test]
    fn offered_requests_are_bounded() {
        let overloaded = |offered: u64, shed: u64| {
            let mut counts = Counts::default();
            let mut load = OfferedLoad::new(counts);
            for _ in 0..240 {
                counts.offered += offered;
                counts.shed += shed;
                counts.answered += offered - shed;
                load.update(counts, 0.5, 100.0);
            }
            load.rates().offered
        };
        let fivefold = overloaded(250, 200);
        assert!((fivefold - 500.0).abs() < 1.0, "{fivefold}");
        let storm = overloaded(500_000, 499_950);
        assert!((storm - 1000.0).abs() < 1.0, "{storm}");
        let down = overloaded(1000, 1000);
        assert!((down - 1000.0).abs() < 1.0, "accepting nothing: {down}");
    }

    #[test]
    fn tokens_of_refused_lists_are_bounded() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        for _ in 0..240 {
            counts.offered += 60;
            counts.answered += 50;
            counts.sized += 60;
            counts.tokens += 50 * 16 + 10 * 131_072;
            load.update(counts, 0.5, 100.0);
        }
        let most = 10.0 * 100.0 * load.request_tokens();
        assert!(load.rates().tokens <= most * 1.001);
    }

    #[test]
    fn without_a_model_every_request_counts() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        counts.offered += 20;
        counts.shed += 20;
        load.update(counts, 0.5, 0.0);
        assert!(load.rates().offered > 0.0);
    }

    #[test]
    fn load_from_before_an_idle_minute_does_not_come_back() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        answer(&mut load, &mut counts, 10_000, 10, 60);
        answer(&mut load, &mut counts, 0, 0, 61);
        answer(&mut load, &mut counts, 2, 10, 1);
        assert!(load.rates().offered < 1.0, "{:?}", load.rates());
    }

    #[test]
    fn discounted_requests_are_no_load() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        for _ in 0..100 {
            // Half of them are discounted in the next update.
            counts.offered += 50;
            counts.discounted += 25;
            load.update(counts, 0.25, 1000.0);
            counts.discounted += 25;
            load.update(counts, 0.25, 1000.0);
        }
        for _ in 0..100 {
            counts.offered += 50;
            counts.discounted += 50;
            load.update(counts, 0.5, 1000.0);
        }
        assert!(load.rates().offered < 10.0, "{:?}", load.rates());
    }

    #[test]
    fn a_ramp_has_its_slope() {
        let mut counts = Counts::default();
        let mut load = OfferedLoad::new(counts);
        for second in 0..600 {
            counts.offered += second;
            load.update(counts, 1.0, 1e6);
        }
        let slope = load.rates().slope;
        assert!((0.95..1.05).contains(&slope), "{slope}");
    }

    #[test]
    fn the_sum_over_replicas_does_not_move_when_one_joins() {
        let mut counts = [Counts::default(); 2];
        let mut loads = counts.map(OfferedLoad::new);
        answer(&mut loads[0], &mut counts[0], 100, 10, 120);
        for _ in 0..30 {
            answer(&mut loads[0], &mut counts[0], 50, 10, 1);
            answer(&mut loads[1], &mut counts[1], 50, 10, 1);
            let sum: f64 = loads.iter().map(|load| load.rates().offered).sum();
            assert!((99.0..101.0).contains(&sum), "{sum}");
        }
    }
}
