//! What was measured, as a table and as JSON.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::measured::{Measured, Objective};
use super::ratio::{Ratio, median, ratios};
use super::run::Options;

/// One target and what it did, round by round.
#[derive(Debug, Clone)]
pub struct Series {
    /// The target's name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// One in each round.
    pub rounds: Vec<Round>,
}

/// What one target did in one round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// In the order in which they ran.
    pub runs: Vec<Run>,
    /// The highest rate that held the objective, where one was looked for: requests a second, 0
    /// when none did.
    pub highest: Option<f64>,
}

/// One load and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// What was sent.
    pub load: String,
    /// What came back.
    #[serde(flatten)]
    pub measured: Measured,
    /// Whether the objective was held, where there is one.
    pub holds: Option<bool>,
}

/// Everything that one call of `intentd bench` measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// What had to be held, if anything.
    pub objective: Option<Objective>,
    /// How it was measured.
    pub options: Options,
    /// Whether the first target is compared with the others.
    pub compared: bool,
    /// Why not all was measured that was asked for.
    pub broken_off: Option<String>,
    /// One for each target.
    pub series: Vec<Series>,
}

/// A thread that runs for more of its time than this may be what limits the rate.
const BUSY_MAX: f64 = 0.85;

const COLUMNS: [&str; 10] = [
    "load",
    "offered/s",
    "answered/s",
    "failed",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "held",
];

impl Series {
    /// The loads that ran, each once, in order of what they offered, with the median over the
    /// rounds of whatever is asked of them.
    pub(super) fn loads(&self) -> Vec<(&str, Vec<&Measured>)> {
        let mut loads: Vec<(&str, Vec<&Measured>)> = Vec::new();
        for run in self.rounds.iter().flat_map(|round| &round.runs) {
            match loads.iter_mut().find(|(load, _)| *load == run.load) {
                Some((_, measured)) => measured.push(&run.measured),
                None => loads.push((&run.load, vec![&run.measured])),
            }
        }
        let rate = |measured: &[&Measured]| measured[0].offered_rate();
        loads.sort_by(|(_, a), (_, b)| rate(a).total_cmp(&rate(b)));
        loads
    }

    /// The median over the rounds of the highest rate that held.
    pub fn highest(&self) -> Option<f64> {
        let rates: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| round.highest)
            .collect();
        (!rates.is_empty()).then(|| median(&rates))
    }
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for series in &self.series {
            let _ = writeln!(text, "{} ({})", series.name, series.url);
            let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
            for (load, measured) in series.loads() {
                rows.push(self.row(load, &measured));
            }
            text.push_str(&aligned(&rows));
            for (kind, count) in failures(series) {
                let reason = reason(series, &kind);
                let _ = writeln!(text, "  {kind}: {count}{reason}");
            }
            if let (Some(highest), Some(objective)) = (series.highest(), self.objective) {
                let Objective {
                    latency,
                    percentile,
                } = objective;
                let ms = latency.as_secs_f64() * 1000.0;
                let _ = writeln!(
                    text,
                    "highest rate with {percentile} % answered within {ms} ms: {highest:.1}/s"
                );
            }
            text.push('\n');
        }
        for ratio in ratios(self) {
            let _ = writeln!(text, "{ratio}");
        }
        if let Some(busy) = self.too_busy() {
            let _ = writeln!(
                text,
                "The load generator had no time to spare ({:.0} % of a core): what is measured may \
                 be its own limit. Take more --workers, or a machine with cores to spare.",
                100.0 * busy
            );
        }
        text
    }

    fn row(&self, load: &str, measured: &[&Measured]) -> Vec<String> {
        let of = |value: fn(&Measured) -> Option<f64>| -> Option<f64> {
            let values: Vec<f64> = measured
                .iter()
                .filter_map(|measured| value(measured))
                .collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let text = |value: Option<f64>, decimals: usize| match value {
            Some(value) => format!("{value:.decimals$}"),
            None => "-".to_owned(),
        };
        let failed = |m: &Measured| Some((m.offered - m.answered) as f64);
        let held = self.objective.map(|objective| {
            let held = measured
                .iter()
                .filter(|measured| measured.holds(objective))
                .count();
            match measured.len() {
                1 if held == 1 => "yes".to_owned(),
                1 => "no".to_owned(),
                count => format!("{held} of {count}"),
            }
        });
        vec![
            load.to_owned(),
            text(of(|m| Some(m.offered_rate())), 1),
            text(of(|m| Some(m.answered_rate())), 1),
            text(of(failed), 0),
            text(of(|m| m.percentile(50.0)), 2),
            text(of(|m| m.percentile(90.0)), 2),
            text(of(|m| m.percentile(99.0)), 2),
            text(of(|m| m.percentile(99.9)), 2),
            text(of(Measured::max), 2),
            held.unwrap_or_else(|| "-".to_owned()),
        ]
    }

    /// The share of its time for which the load generator ran, where that leaves it none.
    fn too_busy(&self) -> Option<f64> {
        let runs = self.series.iter().flat_map(|series| &series.rounds);
        let busy = runs
            .flat_map(|round| &round.runs)
            .map(|run| run.measured.busy);
        busy.filter(|busy| *busy > BUSY_MAX).max_by(f64::total_cmp)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Options {
            warm_up,
            duration,
            timeout,
            connections,
            streams,
            workers,
            seed,
        } = self.options;
        let series = self.series.iter().map(|series| {
            let rounds = series.rounds.iter();
            let rounds = rounds.map(|round| {
                json!({
                    "runs": &round.runs,
                    "highest_per_second": round.highest,
                })
            });
            json!({
                "name": series.name,
                "url": series.url,
                "highest_per_second": series.highest(),
                "rounds": rounds.collect::<Vec<_>>(),
            })
        });
        json!({
            "intentd": env!("CARGO_PKG_VERSION"),
            "objective": self.objective.map(|objective| json!({
                "latency_ms": objective.latency.as_secs_f64() * 1000.0,
                "percentile": objective.percentile,
            })),
            "broken_off": self.broken_off,
            "options": {
                "warm_up_seconds": warm_up.as_secs_f64(),
                "duration_seconds": duration.as_secs_f64(),
                "timeout_seconds": timeout.as_secs_f64(),
                "connections": connections,
                "streams": streams,
                "workers": workers,
                "seed": seed,
            },
            "targets": series.collect::<Vec<_>>(),
            "ratios": ratios(self).iter().map(Ratio::json).collect::<Vec<_>>(),
        })
    }
}

/// The first reason that a kind of failure had, if it has reasons.
fn reason(series: &Series, kind: &str) -> String {
    let runs = series.rounds.iter().flat_map(|round| &round.runs);
    let reason = runs.filter_map(|run| run.measured.reasons.get(kind)).next();
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// All failures of a target, by kind.
fn failures(series: &Series) -> std::collections::BTreeMap<String, u64> {
    let mut failures = std::collections::BTreeMap::new();
    for run in series.rounds.iter().flat_map(|round| &round.runs) {
        for (kind, count) in run.measured.failures() {
            *failures.entry(kind).or_default() += count;
        }
    }
    failures
}

/// Columns of equal width; the first to the left, the others to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}
