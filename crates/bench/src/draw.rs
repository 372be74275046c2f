//! A report as a picture: latency and throughput over the offered load, or over time for a single run.

use super::measured::{Interval, Measured};
use super::report::{Report, Run, Series};
use crate::plot::{Line, Panel, Stroke};

/// Draws the panels of a report.
pub fn draw(report: &Report) -> Vec<Panel> {
    let runs = |series: &Series| series.loads().len();
    match report.series.iter().any(|series| runs(series) > 1) {
        true => over_load(report),
        false => over_time(report),
    }
}

fn over_load(report: &Report) -> Vec<Panel> {
    let (mut latency, mut throughput) = (Vec::new(), Vec::new());
    let mut most = 0.0_f64;
    for (colour, series) in report.series.iter().enumerate() {
        let loads = series.loads();
        let points = |value: fn(&Measured) -> Option<f64>| -> Vec<(f64, f64)> {
            let points = loads
                .iter()
                .filter_map(|results| Some((results.offered_rate(), results.median(value)?)));
            points.collect()
        };
        for drawn in &LATENCIES {
            latency.push(Line {
                name: format!("{} {}", series.name, drawn.name),
                colour,
                stroke: drawn.stroke,
                points: points(drawn.of_run),
            });
        }
        let points = points(|measured| Some(measured.answered_rate()));
        most = points
            .iter()
            .fold(most, |most, (offered, _)| most.max(*offered));
        throughput.push(Line {
            name: series.name.clone(),
            colour,
            stroke: Stroke::Strong,
            points,
        });
    }
    latency.extend(objective(report, most));
    throughput.push(Line {
        name: "all of it".to_owned(),
        stroke: Stroke::Dashed,
        points: vec![(0.0, 0.0), (most, most)],
        ..Line::default()
    });
    panels("offered load, requests a second", latency, throughput)
}

/// A percentile of the latency, as it is drawn.
struct LatencyLine {
    name: &'static str,
    stroke: Stroke,
    of_run: fn(&Measured) -> Option<f64>,
    of_interval: fn(&Interval) -> Option<f64>,
}

const LATENCIES: [LatencyLine; 2] = [
    LatencyLine {
        name: "p50",
        stroke: Stroke::Faint,
        of_run: |run| run.percentile(50.0),
        of_interval: |interval| interval.percentile(50.0),
    },
    LatencyLine {
        name: "p99",
        stroke: Stroke::Strong,
        of_run: |run| run.percentile(99.0),
        of_interval: |interval| interval.percentile(99.0),
    },
];

fn over_time(report: &Report) -> Vec<Panel> {
    let (mut latency, mut throughput) = (Vec::new(), Vec::new());
    let mut longest = 0;
    for (colour, series) in report.series.iter().enumerate() {
        let Some(run) = series.rounds.last().and_then(|round| round.runs.last()) else {
            continue;
        };
        let Run { measured, .. } = run;
        longest = longest.max(measured.intervals.len() as u64 * measured.interval);
        let step = measured.interval as f64;
        let intervals = || {
            let intervals = measured.intervals.iter().enumerate();
            intervals.map(move |(n, interval)| (n as f64 * step, interval))
        };
        for drawn in &LATENCIES {
            let point = |(second, s): (f64, &Interval)| Some((second, (drawn.of_interval)(s)?));
            latency.push(Line {
                name: format!("{} {}", series.name, drawn.name),
                colour,
                stroke: drawn.stroke,
                points: intervals().filter_map(point).collect(),
            });
        }
        throughput.push(Line {
            name: format!("{}, offered", series.name),
            colour,
            stroke: Stroke::Faint,
            points: intervals()
                .map(|(n, s)| (n, s.offered as f64 / step))
                .collect(),
        });
        throughput.push(Line {
            name: format!("{}, answered", series.name),
            colour,
            stroke: Stroke::Strong,
            points: intervals()
                .map(|(n, s)| (n, s.answered as f64 / step))
                .collect(),
        });
    }
    latency.extend(objective(report, longest as f64));
    panels("seconds", latency, throughput)
}

fn objective(report: &Report, end: f64) -> Option<Line> {
    let ms = report.objective?.latency.as_secs_f64() * 1000.0;
    Some(Line {
        name: "objective".to_owned(),
        stroke: Stroke::Dashed,
        points: vec![(0.0, ms), (end, ms)],
        ..Line::default()
    })
}

fn panels(x: &str, latency: Vec<Line>, throughput: Vec<Line>) -> Vec<Panel> {
    vec![
        Panel {
            title: "Latency".to_owned(),
            x: x.to_owned(),
            y: "milliseconds".to_owned(),
            logarithmic: true,
            lines: latency,
        },
        Panel {
            title: "Throughput".to_owned(),
            x: x.to_owned(),
            y: "answers a second".to_owned(),
            logarithmic: false,
            lines: throughput,
        },
    ]
}
