//! What is asked of this server, smoothed: requests a second and the work in them.

use crate::serving::Counts;

/// Time constant of the published rates in seconds: two scrapes of the usual 15 s see a change whole.
const RATE_SECONDS: f64 = 15.0;

/// Time constant of the slower rate that the slope is taken against.
const SLOW_SECONDS: f64 = 60.0;

/// Time constant of the mean size of a request.
const SIZE_SECONDS: f64 = 60.0;

/// Tokens of a request before one has come: a short question.
const TOKENS: f64 = 16.0;

/// Requests, and tokens in them, count up to so many times what was answered, or what could have been where
/// that is more: a client that asks again at once, thousands of times a second, is one client, and a list
/// that is refused costs its sender nothing. Scalers do not grow faster than that between two looks.
const OFFERED_MAX: f64 = 10.0;

/// After this time without a request nothing is left of the load that was.
const IDLE_SECONDS: f64 = 60.0;

/// An exponentially weighted mean of a rate, which begins at zero: what a new replica takes over, the
/// others lose at the same pace, so that their sum stands still.
#[derive(Debug, Clone, Copy, Default)]
struct Ewma(f64);

impl Ewma {
    fn add(&mut self, rate: f64, elapsed: f64, seconds: f64) {
        self.0 += (1.0 - (-elapsed / seconds).exp()) * (rate - self.0);
    }
}

/// The rates of a server.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Requests a second, refused ones included.
    pub offered: f64,
    /// Requests answered a second, errors of the server's included.
    pub accepted: f64,
    /// Requests a second that were refused because of the load or the server's state.
    pub refused: f64,
    /// Of these, requests a second for which there was no room or no time.
    pub crowded: f64,
    /// Requests a second that ended with an error of the server's.
    pub failed: f64,
    /// Tokens a second in what is offered.
    pub tokens: f64,
    /// Bytes a second of large bodies in what is offered.
    pub large: f64,
    /// Change of `offered` in a second, in requests a second.
    pub slope: f64,
}

/// The load as it is followed.
#[derive(Debug)]
pub struct Load {
    before: Counts,
    offered: Ewma,
    accepted: Ewma,
    refused: Ewma,
    crowded: Ewma,
    failed: Ewma,
    tokens: Ewma,
    large: Ewma,
    slow: Ewma,
    /// Requests whose size is known, their texts, tokens and squares of these; older ones count less.
    sized: [f64; 4],
    /// Bytes of large bodies that have been told after their requests were seen to come.
    carried: f64,
    /// Mistakes that have been told before their requests were seen to come: at most 0.
    debt: f64,
    /// Seconds since the last request.
    silence: f64,
}

impl Load {
    /// No load, after what `counts` says has come before.
    pub fn new(counts: Counts) -> Self {
        Self {
            before: counts,
            offered: Ewma::default(),
            accepted: Ewma::default(),
            refused: Ewma::default(),
            crowded: Ewma::default(),
            failed: Ewma::default(),
            tokens: Ewma::default(),
            large: Ewma::default(),
            slow: Ewma::default(),
            sized: [0.0; 4],
            carried: 0.0,
            debt: 0.0,
            silence: IDLE_SECONDS,
        }
    }

    /// `elapsed` seconds later, so much has come; the server can do `capacity` requests a second.
    pub fn update(&mut self, counts: Counts, elapsed: f64, capacity: f64) {
        if elapsed <= 0.0 {
            return;
        }
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let before = std::mem::replace(&mut self.before, counts);
        let mistaken = since(counts.mistaken, before.mistaken);
        // A request may come before this look and turn out to be a mistake after it.
        let asked = since(counts.offered, before.offered) - mistaken + self.debt;
        self.debt = asked.min(0.0);
        let asked = asked.max(0.0);
        let failed = since(counts.failed, before.failed);
        let ended = since(counts.answered, before.answered) + failed;
        let size = self.learn_sizes(&counts, &before, elapsed);
        let (mut offered, mut tokens) = (asked, asked * size);
        // Without a model nothing can be answered, and nothing says how much is too much.
        if capacity > 0.0 {
            let most = OFFERED_MAX * ended.max(capacity * elapsed);
            offered = offered.min(most);
            tokens = tokens.min(most * self.request_tokens());
        }
        let add = |ewma: &mut Ewma, count: f64| ewma.add(count / elapsed, elapsed, RATE_SECONDS);
        add(&mut self.offered, offered);
        add(&mut self.tokens, tokens);
        self.carried += since(counts.large, before.large);
        let mut large = 0.0;
        if asked > 0.0 {
            // As many of them as of the requests that came.
            large = std::mem::take(&mut self.carried) * offered / asked;
        }
        add(&mut self.large, large);
        add(&mut self.accepted, ended);
        add(&mut self.refused, since(counts.shed, before.shed));
        add(&mut self.crowded, since(counts.crowded, before.crowded));
        add(&mut self.failed, failed);
        self.slow.add(offered / elapsed, elapsed, SLOW_SECONDS);
        self.silence = if asked > 0.0 {
            0.0
        } else {
            self.silence + elapsed
        };
        if self.silence >= IDLE_SECONDS {
            // The first request after a silence does not bring back what was before it.
            for ewma in [
                &mut self.offered,
                &mut self.tokens,
                &mut self.large,
                &mut self.accepted,
                &mut self.refused,
                &mut self.crowded,
                &mut self.failed,
                &mut self.slow,
            ] {
                *ewma = Ewma::default();
            }
        }
    }

    /// Follows the sizes of requests; gives the mean of the new ones.
    fn learn_sizes(&mut self, counts: &Counts, before: &Counts, elapsed: f64) -> f64 {
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let new = [
            since(counts.sized, before.sized),
            since(counts.texts, before.texts),
            since(counts.tokens, before.tokens),
            since(counts.squares, before.squares),
        ];
        if new[0] == 0.0 {
            // A long time without requests says nothing about their size.
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

    /// Spread of the sizes of requests: their standard deviation by their mean.
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

    /// The rates now. Exactly zero once nothing has come for a minute.
    pub fn rates(&self) -> Rates {
        if self.silence >= IDLE_SECONDS {
            return Rates::default();
        }
        Rates {
            offered: self.offered.0,
            accepted: self.accepted.0,
            refused: self.refused.0,
            crowded: self.crowded.0,
            failed: self.failed.0,
            tokens: self.tokens.0,
            large: self.large.0,
            // On a ramp each lags behind by its time constant.
            slope: (self.offered.0 - self.slow.0) / (SLOW_SECONDS - RATE_SECONDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many requests a second, of so many tokens, for so many seconds.
    fn ask(load: &mut Load, counts: &mut Counts, (rate, tokens): (u64, u64), seconds: u32) {
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
    fn rates_follow_what_comes_and_are_zero_soon_after_the_last() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
        assert_eq!(load.rates(), Rates::default());
        ask(&mut load, &mut counts, (100, 20), 60);
        let rates = load.rates();
        assert!((98.0..=100.0).contains(&rates.offered), "{rates:?}");
        assert!((rates.tokens / rates.offered - 20.0).abs() < 1e-6);
        assert!((load.request_tokens() - 20.0).abs() < 1e-6);
        ask(&mut load, &mut counts, (0, 0), 61);
        assert_eq!(load.rates(), Rates::default());
        assert!((load.request_tokens() - 20.0).abs() < 1e-6);
    }

    #[test]
    fn large_requests_are_more_work() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
        ask(&mut load, &mut counts, (100, 10), 120);
        let small = load.rates().tokens;
        ask(&mut load, &mut counts, (100, 320), 120);
        assert!(load.rates().tokens / small > 30.0);
        assert!(load.request_tokens() > 250.0);
    }

    #[test]
    fn requests_count_up_to_a_bound() {
        let overloaded = |offered: u64, shed: u64| {
            let mut counts = Counts::default();
            let mut load = Load::new(counts);
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
    fn lists_that_are_refused_count_up_to_a_bound() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
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
    fn without_a_model_everything_that_comes_counts() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
        counts.offered += 20;
        counts.shed += 20;
        load.update(counts, 0.5, 0.0);
        assert!(load.rates().offered > 0.0);
    }

    #[test]
    fn what_was_before_a_silence_does_not_come_back() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
        ask(&mut load, &mut counts, (10_000, 10), 60);
        ask(&mut load, &mut counts, (0, 0), 61);
        ask(&mut load, &mut counts, (2, 10), 1);
        assert!(load.rates().offered < 1.0, "{:?}", load.rates());
    }

    #[test]
    fn mistaken_requests_are_no_load() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
        for _ in 0..100 {
            // Half of them turn out to be so by the next look.
            counts.offered += 50;
            counts.mistaken += 25;
            load.update(counts, 0.25, 1000.0);
            counts.mistaken += 25;
            load.update(counts, 0.25, 1000.0);
        }
        for _ in 0..100 {
            counts.offered += 50;
            counts.mistaken += 50;
            load.update(counts, 0.5, 1000.0);
        }
        assert!(load.rates().offered < 10.0, "{:?}", load.rates());
    }

    #[test]
    fn a_ramp_has_its_slope() {
        let mut counts = Counts::default();
        let mut load = Load::new(counts);
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
        let mut loads = counts.map(Load::new);
        ask(&mut loads[0], &mut counts[0], (100, 10), 120);
        for _ in 0..30 {
            ask(&mut loads[0], &mut counts[0], (50, 10), 1);
            ask(&mut loads[1], &mut counts[1], (50, 10), 1);
            let sum: f64 = loads.iter().map(|load| load.rates().offered).sum();
            assert!((99.0..101.0).contains(&sum), "{sum}");
        }
    }
}
