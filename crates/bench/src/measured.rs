//! Counts and latencies of one run of a load against a target.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is recorded. Latencies are in microseconds, with three significant digits.
const LONGEST: Duration = Duration::from_secs(3600);

const UNCONNECTED: &str = "not connected";
const BROKEN: &str = "connection broken";

/// The percentiles in the JSON form, by name.
const PERCENTILES: [(&str, f64); 5] = [
    ("p50_ms", 50.0),
    ("p90_ms", 90.0),
    ("p95_ms", 95.0),
    ("p99_ms", 99.0),
    ("p99_9_ms", 99.9),
];

/// A service level objective: the share of requests that must be answered correctly within a latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// The latency, counted from the time when the request was due.
    pub latency: Duration,
    /// The share, in percent of all requests that were due.
    pub percentile: f64,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Status 2xx, with the expected label if labels are checked.
    Answered,
    /// Status 2xx with another label.
    Wrong,
    /// Another status.
    Status(u16),
    /// No connection could be opened, with the reason.
    Unconnected(String),
    /// The connection broke, with the reason.
    Broken(String),
    /// No answer within the timeout.
    TimedOut,
}

/// Statuses by which a server sheds load: Too Many Requests, Service Unavailable.
const REFUSALS: [u16; 2] = [429, 503];

/// Counts and latencies of one run.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Duration of the load.
    pub duration: Duration,
    /// Requests that were due.
    pub offered: u64,
    /// Requests that were answered with 2xx.
    pub answered: u64,
    /// Requests that were answered with 429 or 503.
    pub refused: u64,
    /// Requests that were answered with 2xx and an unexpected label, if labels are checked.
    pub wrong: u64,
    /// Requests by other status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests for which no connection could be opened.
    pub unconnected: u64,
    /// Requests whose connection broke.
    pub broken: u64,
    /// Requests without an answer within the timeout.
    pub timed_out: u64,
    /// Time from the start of the measurement to the last answer.
    pub took: Duration,
    /// Latencies of answered requests, in microseconds.
    latencies: Histogram<u64>,
    /// The course of the run, by the time when requests were due.
    pub intervals: Vec<Interval>,
    /// Seconds in an interval.
    pub interval: u64,
    /// CPU share of the busiest thread of the load generator.
    pub busy: f64,
    /// The first reason of each kind of failure that has reasons.
    pub reasons: BTreeMap<&'static str, String>,
}

/// Most intervals in a run; a longer run has longer intervals.
const INTERVALS_MAX: u64 = 600;

/// Counts and latencies of a part of a run.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Requests that were due.
    pub offered: u64,
    /// Requests of these that were answered.
    pub answered: u64,
    latencies: Histogram<u64>,
}

fn histogram(digits: u8) -> Histogram<u64> {
    let most = LONGEST.as_micros() as u64;
    let histogram = Histogram::new_with_bounds(1, most, digits);
    histogram.expect("bounds and digits are in the range that the library allows")
}

impl Interval {
    fn new() -> Self {
        Self {
            offered: 0,
            answered: 0,
            latencies: histogram(2),
        }
    }

    /// A percentile of the latencies, in milliseconds; `None` without answers.
    pub fn percentile(&self, percentile: f64) -> Option<f64> {
        value(&self.latencies, percentile)
    }
}

fn value(histogram: &Histogram<u64>, percentile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_percentile(percentile) as f64 / 1000.0)
}

impl Measured {
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            duration,
            offered: 0,
            answered: 0,
            refused: 0,
            wrong: 0,
            statuses: BTreeMap::new(),
            unconnected: 0,
            broken: 0,
            timed_out: 0,
            took: Duration::ZERO,
            latencies: histogram(3),
            intervals: Vec::new(),
            interval: duration.as_secs().div_ceil(INTERVALS_MAX).max(1),
            busy: 0.0,
            reasons: BTreeMap::new(),
        }
    }

    /// Counts one request that was due at `at`, from the start of the measurement, and ended `latency` later.
    pub(super) fn count(&mut self, at: Duration, latency: Duration, outcome: Outcome) {
        let index = (at.as_secs() / self.interval) as usize;
        while self.intervals.len() <= index {
            self.intervals.push(Interval::new());
        }
        let interval = &mut self.intervals[index];
        self.offered += 1;
        interval.offered += 1;
        match outcome {
            Outcome::Answered => {
                self.answered += 1;
                interval.answered += 1;
                self.took = self.took.max(at + latency);
                let micros = latency.as_micros() as u64;
                self.latencies.saturating_record(micros);
                interval.latencies.saturating_record(micros);
            }
            Outcome::Wrong => self.wrong += 1,
            Outcome::Status(status) if REFUSALS.contains(&status) => self.refused += 1,
            Outcome::Status(status) => *self.statuses.entry(status).or_default() += 1,
            Outcome::Unconnected(reason) => {
                self.unconnected += 1;
                self.reasons.entry(UNCONNECTED).or_insert(reason);
            }
            Outcome::Broken(reason) => {
                self.broken += 1;
                self.reasons.entry(BROKEN).or_insert(reason);
            }
            Outcome::TimedOut => self.timed_out += 1,
        }
    }

    pub(super) fn count_busy(&mut self, share: f64) {
        self.busy = self.busy.max(share);
    }

    /// Adds the results of another worker of the same run.
    pub(super) fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.answered += other.answered;
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.unconnected += other.unconnected;
        self.broken += other.broken;
        self.timed_out += other.timed_out;
        self.took = self.took.max(other.took);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        let same = "histograms of the same bounds";
        self.latencies.add(&other.latencies).expect(same);
        while self.intervals.len() < other.intervals.len() {
            self.intervals.push(Interval::new());
        }
        for (interval, other) in self.intervals.iter_mut().zip(&other.intervals) {
            interval.offered += other.offered;
            interval.answered += other.answered;
            interval.latencies.add(&other.latencies).expect(same);
        }
        self.busy = self.busy.max(other.busy);
        for (kind, reason) in &other.reasons {
            self.reasons.entry(kind).or_insert_with(|| reason.clone());
        }
    }

    /// Requests a second that were due.
    pub fn offered_rate(&self) -> f64 {
        self.offered as f64 / self.duration.as_secs_f64()
    }

    /// Requests a second that were answered, until the last answer.
    pub fn answered_rate(&self) -> f64 {
        self.answered as f64 / self.duration.max(self.took).as_secs_f64()
    }

    /// A percentile of the latencies of answered requests, in milliseconds.
    pub fn percentile(&self, percentile: f64) -> Option<f64> {
        value(&self.latencies, percentile)
    }

    /// The mean latency, in milliseconds.
    pub fn mean(&self) -> Option<f64> {
        (!self.latencies.is_empty()).then(|| self.latencies.mean() / 1000.0)
    }

    /// The longest latency, in milliseconds.
    pub fn max(&self) -> Option<f64> {
        (!self.latencies.is_empty()).then(|| self.latencies.max() as f64 / 1000.0)
    }

    /// Whether the objective was held. An unanswered request counts as late.
    pub fn holds(&self, objective: Objective) -> bool {
        let micros = objective.latency.as_micros() as u64;
        let within = self.latencies.count_between(0, micros);
        // 99.9 / 100 · 1000 is a little more than 999 in binary.
        let needed = objective.percentile / 100.0 * self.offered as f64 - 1e-6;
        self.offered > 0 && within as f64 >= needed
    }

    /// The number of failures by kind, without kinds that did not occur.
    pub fn failures(&self) -> Vec<(String, u64)> {
        let statuses = self.statuses.iter();
        let statuses = statuses.map(|(status, count)| (format!("status {status}"), *count));
        let others = [
            ("wrong", self.wrong),
            ("refused", self.refused),
            (UNCONNECTED, self.unconnected),
            (BROKEN, self.broken),
            ("timed out", self.timed_out),
        ];
        let others = others.map(|(kind, count)| (kind.to_owned(), count));
        others
            .into_iter()
            .chain(statuses)
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Serialize for Measured {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offered_per_second", &self.offered_rate())?;
        map.serialize_entry("answered_per_second", &self.answered_rate())?;
        map.serialize_entry("offered", &self.offered)?;
        map.serialize_entry("answered", &self.answered)?;
        map.serialize_entry("seconds", &self.duration.as_secs_f64())?;
        map.serialize_entry("mean_ms", &self.mean())?;
        for (name, percentile) in PERCENTILES {
            map.serialize_entry(name, &self.percentile(percentile))?;
        }
        map.serialize_entry("max_ms", &self.max())?;
        map.serialize_entry("generator_busy", &self.busy)?;
        let failures: BTreeMap<String, u64> = self.failures().into_iter().collect();
        map.serialize_entry("failures", &failures)?;
        map.serialize_entry("reasons", &self.reasons)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// 98 answers of 1 to 98 ms, one refusal and one timeout.
    fn measured() -> Measured {
        let mut measured = Measured::new(Duration::from_secs(2));
        for n in 1..=98 {
            measured.count(millis(n * 10), millis(n), Outcome::Answered);
        }
        measured.count(millis(1500), millis(1), Outcome::Status(429));
        measured.count(millis(1600), millis(900), Outcome::TimedOut);
        measured
    }

    #[test]
    fn a_failed_request_counts_as_late() {
        let measured = measured();
        let objective = |ms, percentile| Objective {
            latency: millis(ms),
            percentile,
        };
        assert!(measured.holds(objective(98, 98.0)));
        assert!(!measured.holds(objective(98, 98.1)));
        assert!(measured.holds(objective(50, 50.0)));
        assert!(!measured.holds(objective(49, 50.0)));
        assert!(!Measured::new(millis(1)).holds(objective(1, 50.0)));
        for offered in [1000, 2000, 10_000] {
            let mut exact = Measured::new(millis(1000));
            for n in 0..offered {
                let latency = millis(if n < offered / 1000 { 9 } else { 1 });
                exact.count(millis(0), latency, Outcome::Answered);
            }
            assert!(exact.holds(objective(1, 99.9)), "{offered}");
            exact.count(millis(0), millis(9), Outcome::Answered);
            assert!(!exact.holds(objective(1, 99.9)), "{offered}");
        }
    }

    #[test]
    fn counts_add_up_and_workers_merge() {
        let mut both = measured();
        both.merge(&measured());
        assert_eq!(
            (both.offered, both.answered, both.refused, both.timed_out),
            (200, 196, 2, 2)
        );
        assert_eq!(both.intervals.len(), 2);
        assert_eq!(both.intervals[1].offered, 4);
        // Unanswered requests do not extend the time.
        assert_eq!(both.took, millis(980 + 98));
        assert_eq!((both.offered_rate(), both.answered_rate()), (100.0, 98.0));
        assert_eq!(
            both.failures(),
            [("refused".to_owned(), 2), ("timed out".to_owned(), 2)]
        );
        let p50 = both.percentile(50.0).unwrap();
        assert!((p50 - 49.0).abs() < 0.1, "{p50}");
        assert!((both.intervals[0].percentile(100.0).unwrap() - 98.0).abs() < 1.0);
    }

    #[test]
    fn without_answers_there_is_no_latency() {
        let mut measured = Measured::new(millis(1000));
        measured.count(millis(0), millis(5), Outcome::Status(500));
        assert_eq!(
            (measured.percentile(99.0), measured.mean(), measured.max()),
            (None, None, None)
        );
        let json = serde_json::to_value(&measured).unwrap();
        assert!(json["p99_ms"].is_null());
        assert_eq!(json["failures"]["status 500"], 1);
    }
}
