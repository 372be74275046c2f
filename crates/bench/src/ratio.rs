//! The comparison of two targets: ratios within a round, above 1 where the first is better.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::measured::Measured;
use super::median::median;
use super::report::{Report, Round, Run};

/// The ratios of the first target to another one, by round. Above 1 the first is better.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ratio {
    measure: String,
    first: String,
    other: String,
    values: Vec<f64>,
    /// All rounds, including those without a ratio.
    rounds: usize,
}

/// The least and the greatest of several values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extremes {
    least: f64,
    most: f64,
}

/// A value that is compared; less is better.
struct Measure {
    name: &'static str,
    of: fn(&Measured) -> Option<f64>,
}

/// What is compared for each load.
const MEASURES: [Measure; 3] = [
    Measure {
        name: "p50",
        of: |measured| latency(measured, 50.0),
    },
    Measure {
        name: "p99",
        of: |measured| latency(measured, 99.0),
    },
    Measure {
        name: "time an answer",
        of: |measured| (measured.answered > 0).then(|| 1.0 / measured.answered_rate()),
    },
];

/// Above this share of failures the latency is not compared: a server that refuses most requests is
/// fast with the rest.
const FAILED_SHARE_MAX: f64 = 0.01;

fn latency(measured: &Measured, percentile: f64) -> Option<f64> {
    let failed = (measured.offered - measured.answered) as f64;
    let answers = failed <= FAILED_SHARE_MAX * measured.offered as f64;
    answers.then(|| measured.percentile(percentile)).flatten()
}

/// Compares the first target with each other one, in all measurements that both have.
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
        let runs = first.rounds.first().map_or(&[][..], |round| &round.runs);
        for (index, run) in runs.iter().enumerate() {
            for measure in &MEASURES {
                let ratio = |(first, other): (&Round, &Round)| {
                    let (first, other) = (first.runs.get(index)?, other.runs.get(index)?);
                    // The loads of a search depend on the target.
                    let is_same = |other: &Run| other.load == run.load;
                    if !is_same(first) || !is_same(other) {
                        return None;
                    }
                    Some((measure.of)(&other.measured)? / (measure.of)(&first.measured)?)
                };
                let values = rounds().filter_map(ratio).collect();
                ratios.push(pair(format!("{}: {}", run.load, measure.name), values));
            }
        }
    }
    for ratio in &mut ratios {
        // A server that held no rate gives no ratio.
        ratio
            .values
            .retain(|value| value.is_finite() && *value > 0.0);
    }
    ratios.retain(|ratio| !ratio.values.is_empty());
    ratios
}

impl Ratio {
    fn extremes(&self) -> Extremes {
        let values = self.values.iter().copied();
        Extremes {
            least: values.clone().fold(f64::INFINITY, f64::min),
            most: values.fold(0.0, f64::max),
        }
    }

    pub(super) fn json(&self) -> Value {
        let Extremes { least, most } = self.extremes();
        json!({
            "measure": self.measure,
            "first": self.first,
            "other": self.other,
            "median": median(&self.values),
            "min": least,
            "max": most,
            "rounds": self.values,
        })
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Extremes { least, most } = self.extremes();
        write!(
            f,
            "{}: {} is {:.2} times as good as {} ({least:.2} to {most:.2} in {} of {} rounds)",
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
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn ratios_are_paired_and_above_one_where_the_first_is_better() {
        let found = ratios(&report(false));
        let p50 = &found[0];
        assert_eq!(p50.measure, "poisson 100/s: p50");
        assert!((median(&p50.values) - 3.0).abs() < 0.02, "{p50:?}");
        let found = ratios(&report(true));
        // The highest rate, and the latencies and times of the load that both ran.
        assert_eq!(found.len(), 1 + MEASURES.len());
        let extremes = Extremes {
            least: 2.0,
            most: 4.0,
        };
        assert_eq!(median(&found[0].values), 3.0);
        assert_eq!(found[0].extremes(), extremes);
        assert!(
            found[0]
                .to_string()
                .contains("ours is 3.00 times as good as theirs")
        );
    }
}
