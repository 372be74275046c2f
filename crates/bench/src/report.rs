//! The measurements of one call of `intentd bench`.

use serde::Serialize;

use super::measured::{Measured, Objective};
use super::median::median;
use super::run::Options;

/// All measurements of one target, by round.
#[derive(Debug, Clone)]
pub struct Series {
    /// The target's name.
    pub name: String,
    /// The target's URL.
    pub url: String,
    /// The rounds, in order.
    pub rounds: Vec<Round>,
}

/// The measurements of one target in one round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// The runs, in order.
    pub runs: Vec<Run>,
    /// The highest rate that held the objective, in requests a second; 0 when no rate did. `None` without
    /// a search.
    pub highest: Option<f64>,
}

/// One load and its results.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The load.
    pub load: String,
    /// The results.
    #[serde(flatten)]
    pub measured: Measured,
    /// Whether the objective held, if there is one.
    pub holds: Option<bool>,
}

/// All measurements of one call of `intentd bench`.
#[derive(Debug, Clone)]
pub struct Report {
    /// The objective, if any.
    pub objective: Option<Objective>,
    /// The options of all runs.
    pub options: Options,
    /// Whether the first target is compared with the others.
    pub compared: bool,
    /// The error that ended the measurement early, if any.
    pub broken_off: Option<String>,
    /// One series for each target.
    pub series: Vec<Series>,
}

/// The results of one load in all rounds.
#[derive(Debug)]
pub(super) struct LoadResults<'a> {
    pub(super) load: &'a str,
    /// At least one.
    pub(super) measured: Vec<&'a Measured>,
}

impl LoadResults<'_> {
    /// Requests a second that were offered, in the first run.
    pub(super) fn offered_rate(&self) -> f64 {
        self.measured[0].offered_rate()
    }

    /// The median of a value over the rounds that have it.
    pub(super) fn median(&self, value: fn(&Measured) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.measured.iter().filter_map(|m| value(m)).collect();
        (!values.is_empty()).then(|| median(&values))
    }
}

impl Series {
    /// The results by load, in order of the offered rate.
    pub(super) fn loads(&self) -> Vec<LoadResults<'_>> {
        let mut loads: Vec<LoadResults<'_>> = Vec::new();
        for Run { load, measured, .. } in self.rounds.iter().flat_map(|round| &round.runs) {
            match loads.iter_mut().find(|results| results.load == load) {
                Some(results) => results.measured.push(measured),
                None => loads.push(LoadResults {
                    load,
                    measured: vec![measured],
                }),
            }
        }
        loads.sort_by(|a, b| a.offered_rate().total_cmp(&b.offered_rate()));
        loads
    }

    /// The median over the rounds of the highest rate that held the objective.
    pub fn highest(&self) -> Option<f64> {
        let rates: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| round.highest)
            .collect();
        (!rates.is_empty()).then(|| median(&rates))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::measured::Outcome;
    use super::*;

    fn run(latency_ms: u64) -> Run {
        let mut measured = Measured::new(Duration::from_secs(1));
        for n in 0..100 {
            let latency = Duration::from_millis(latency_ms);
            measured.count(Duration::from_millis(n), latency, Outcome::Answered);
        }
        let load = "poisson 100/s".to_owned();
        Run {
            load,
            measured,
            holds: None,
        }
    }

    /// Two targets in three rounds, with or without a search for the highest rate.
    pub(crate) fn report(searched: bool) -> Report {
        let series = |name: &str, latencies: [u64; 3], rates: [f64; 3]| Series {
            name: name.to_owned(),
            url: "http://localhost/".to_owned(),
            rounds: (0..3)
                .map(|n| Round {
                    runs: vec![run(latencies[n])],
                    highest: searched.then_some(rates[n]),
                })
                .collect(),
        };
        Report {
            compared: true,
            broken_off: None,
            objective: searched.then_some(Objective {
                latency: Duration::from_millis(50),
                percentile: 99.0,
            }),
            options: Options {
                warm_up: Duration::ZERO,
                duration: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                connections: 1,
                streams: 1,
                workers: 1,
                seed: 0,
            },
            series: vec![
                series("ours", [10, 20, 10], [300.0, 200.0, 400.0]),
                series("theirs", [30, 40, 50], [100.0, 100.0, 100.0]),
            ],
        }
    }

    #[test]
    fn a_series_has_its_loads_and_the_median_of_its_rates() {
        let report = report(true);
        let loads = report.series[0].loads();
        assert_eq!((loads.len(), loads[0].measured.len()), (1, 3));
        assert_eq!(report.series[0].highest(), Some(300.0));
    }
}
