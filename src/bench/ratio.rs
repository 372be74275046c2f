//! How two targets compare: ratios within a round, above 1 where the first is better.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::measured::Measured;
use super::report::Report;

/// A ratio of the first target to another one; above 1, the first is better.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ratio {
    measure: String,
    first: String,
    other: String,
    values: Vec<f64>,
    /// Rounds, also those without a ratio.
    rounds: usize,
}

/// Of at least one value.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The first target against each other one, in whatever both were measured.
pub(super) fn ratios(report: &Report) -> Vec<Ratio> {
    let Some((first, others)) = report.series.split_first().filter(|_| report.compared) else {
        return Vec::new();
    };
    let mut ratios = Vec::new();
    for other in others {
        let pair = |measure: String, values: Vec<f64>| Ratio {
            measure,
            first: first.name.clone(),
            other: other.name.clone(),
            values,
            rounds: first.rounds.len().min(other.rounds.len()),
        };
        let rounds = || first.rounds.iter().zip(&other.rounds);
        if report.objective.is_some() && first.highest().is_some() {
            let rates =
                rounds().filter_map(|(first, other)| Some((first.highest?, other.highest?)));
            let values = rates.map(|(first, other)| first / other).collect();
            ratios.push(pair("highest rate".to_owned(), values));
        }
        for (index, run) in first
            .rounds
            .first()
            .map_or(&[][..], |r| &r.runs)
            .iter()
            .enumerate()
        {
            let of = |value: fn(&Measured) -> Option<f64>| -> Vec<f64> {
                let runs = rounds().filter_map(|(first, other)| {
                    let (first, other) = (first.runs.get(index)?, other.runs.get(index)?);
                    // The loads of a search depend on the target.
                    let same = first.load == run.load && other.load == run.load;
                    if !same {
                        return None;
                    }
                    Some(value(&other.measured)? / value(&first.measured)?)
                });
                runs.collect()
            };
            for (name, value) in MEASURES {
                let values = of(value);
                ratios.push(pair(format!("{}: {name}", run.load), values));
            }
        }
    }
    for ratio in &mut ratios {
        // Of a server that held no rate there is no ratio.
        ratio
            .values
            .retain(|value| value.is_finite() && *value > 0.0);
    }
    ratios.retain(|ratio| !ratio.values.is_empty());
    ratios
}

/// The latency of a target that fails more than this share of the requests is no measure: who
/// refuses most of them is quick with the rest.
const FAILED_SHARE_MAX: f64 = 0.01;

fn latency(measured: &Measured, percentile: f64) -> Option<f64> {
    let failed = (measured.offered - measured.answered) as f64;
    let answers = failed <= FAILED_SHARE_MAX * measured.offered as f64;
    answers.then(|| measured.percentile(percentile)).flatten()
}

type Measure = (&'static str, fn(&Measured) -> Option<f64>);

/// What is compared where no rate is looked for: less is better.
const MEASURES: [Measure; 3] = [
    ("p50", |measured| latency(measured, 50.0)),
    ("p99", |measured| latency(measured, 99.0)),
    ("time an answer", |measured| {
        (measured.answered > 0).then(|| 1.0 / measured.answered_rate())
    }),
];

impl Ratio {
    fn range(&self) -> (f64, f64) {
        let values = self.values.iter().copied();
        (
            values.clone().fold(f64::INFINITY, f64::min),
            values.fold(0.0, f64::max),
        )
    }

    pub(super) fn json(&self) -> Value {
        let (low, high) = self.range();
        json!({
            "measure": self.measure,
            "first": self.first,
            "other": self.other,
            "median": median(&self.values),
            "min": low,
            "max": high,
            "rounds": self.values,
        })
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (low, high) = self.range();
        write!(
            f,
            "{}: {} is {:.2} times as good as {} ({low:.2} to {high:.2} in {} of {} rounds)",
            self.measure,
            self.first,
            median(&self.values),
            self.other,
            self.values.len(),
            self.rounds
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::measured::{Objective, Outcome};
    use super::super::report::{Round, Run, Series};
    use super::super::run::Options;
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

    fn report(searched: bool) -> Report {
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
    fn ratios_are_paired_and_above_one_where_the_first_is_better() {
        let found = ratios(&report(false));
        let p50 = &found[0];
        assert_eq!(p50.measure, "poisson 100/s: p50");
        assert!((median(&p50.values) - 3.0).abs() < 0.02, "{p50:?}");
        let found = ratios(&report(true));
        // The rate that was found, and what both did under the load that both ran.
        assert_eq!(found.len(), 1 + MEASURES.len());
        assert_eq!(
            (median(&found[0].values), found[0].range()),
            (3.0, (2.0, 4.0))
        );
        assert!(
            found[0]
                .to_string()
                .contains("ours is 3.00 times as good as theirs")
        );
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let report = report(true);
        let table = report.table();
        for part in ["ours (http://localhost/)", "300.0/s", "3 of 3", "p99.9 ms"] {
            assert!(table.contains(part), "{part} is missing from\n{table}");
        }
        let json = report.json();
        assert_eq!(json["targets"][0]["highest_per_second"], 300.0);
        assert_eq!(json["ratios"][0]["median"], 3.0);
        assert_eq!(
            json["targets"][1]["rounds"][2]["runs"][0]["load"],
            "poisson 100/s"
        );
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
