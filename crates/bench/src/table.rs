//! A report as a table, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::measured::{Measured, Objective};
use super::ratio::ratios;
use super::report::{LoadResults, Report, Series};

/// Above this CPU share, a thread of the generator may be what limits the rate.
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

impl Report {
    /// The report as a table.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for series in &self.series {
            let _ = writeln!(text, "{} ({})", series.name, series.url);
            let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
            rows.extend(series.loads().iter().map(|results| self.row(results)));
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

    /// One load: medians over its rounds, and in how many of them the objective held.
    fn row(&self, results: &LoadResults<'_>) -> Vec<String> {
        let LoadResults { load, measured } = results;
        let cell =
            |decimals: usize, value: fn(&Measured) -> Option<f64>| match results.median(value) {
                Some(value) => format!("{value:.decimals$}"),
                None => "-".to_owned(),
            };
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
            (*load).to_owned(),
            cell(1, |m| Some(m.offered_rate())),
            cell(1, |m| Some(m.answered_rate())),
            cell(0, |m| Some((m.offered - m.answered) as f64)),
            cell(2, |m| m.percentile(50.0)),
            cell(2, |m| m.percentile(90.0)),
            cell(2, |m| m.percentile(99.0)),
            cell(2, |m| m.percentile(99.9)),
            cell(2, Measured::max),
            held.unwrap_or_else(|| "-".to_owned()),
        ]
    }

    /// The CPU share of the load generator, if it is too high.
    fn too_busy(&self) -> Option<f64> {
        let runs = self.series.iter().flat_map(|series| &series.rounds);
        let busy = runs
            .flat_map(|round| &round.runs)
            .map(|run| run.measured.busy);
        busy.filter(|busy| *busy > BUSY_MAX).max_by(f64::total_cmp)
    }
}

/// The first recorded reason of a kind of failure, in brackets; empty without one.
fn reason(series: &Series, kind: &str) -> String {
    let runs = series.rounds.iter().flat_map(|round| &round.runs);
    let reason = runs.filter_map(|run| run.measured.reasons.get(kind)).next();
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// All failures of a target, by kind.
fn failures(series: &Series) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for run in series.rounds.iter().flat_map(|round| &round.runs) {
        for (kind, count) in run.measured.failures() {
            *failures.entry(kind).or_default() += count;
        }
    }
    failures
}

/// Formats rows in aligned columns: the first to the left, the others to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
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

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;

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
}
