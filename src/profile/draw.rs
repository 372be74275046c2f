//! A profile as a picture: times of batches, and latency over the rate.

use super::file::Profile;
use super::outlook::{Outlook, model};
use crate::autoscale::tail::Tail;
use crate::bench::plot::{Line, Panel, Stroke};

/// Most tokens of a batch in the second panel, which enlarges the corner of the first.
const SMALL: usize = 256;

/// Share of the highest rate up to which latency is drawn.
const LOAD_MAX: f64 = 0.97;

/// Points of a latency line.
const STEPS: u32 = 30;

/// Draws three panels: all batches, small batches, latency.
pub fn draw(profile: &Profile, outlook: &Outlook) -> Vec<Panel> {
    let title = format!(
        "Time of a batch: {} on {}",
        profile.model.name, profile.engine
    );
    vec![
        batches(profile, title, usize::MAX),
        batches(profile, format!("Batches of up to {SMALL} tokens"), SMALL),
        latency(profile, outlook),
    ]
}

fn batches(profile: &Profile, title: String, most: usize) -> Panel {
    let drawn = || profile.points.iter().filter(|p| p.shape.total() <= most);
    let mut columns: Vec<usize> = drawn().map(|point| point.shape.tokens).collect();
    columns.sort_unstable();
    columns.dedup();
    let end = drawn().map(|point| point.shape.total()).max().unwrap_or(0);
    let mut lines = vec![Line {
        name: "τ0 + α·n".to_owned(),
        stroke: Stroke::Dashed,
        points: [0.0, end as f64]
            .map(|n| (n, profile.fit.seconds(n) * 1e3))
            .to_vec(),
        ..Line::default()
    }];
    lines.extend(columns.iter().enumerate().map(|(colour, tokens)| {
        let points = drawn().filter(|point| point.shape.tokens == *tokens);
        Line {
            name: format!("texts of {tokens}"),
            colour,
            stroke: Stroke::Strong,
            points: points
                .map(|p| (p.shape.total() as f64, p.seconds_median * 1e3))
                .collect(),
        }
    }));
    Panel {
        title,
        x: "tokens of the batch".to_owned(),
        y: "milliseconds".to_owned(),
        logarithmic: false,
        lines,
    }
}

fn latency(profile: &Profile, outlook: &Outlook) -> Panel {
    let tokens = outlook.request_tokens;
    let longest = outlook
        .objectives
        .iter()
        .map(|capacity| capacity.slo_seconds);
    let longest = longest.fold(0.1, f64::max);
    let model = model(profile, tokens, longest);
    let rate_max = model.service.rate(model.batch_max);
    let rates = (1..=STEPS).map(|n| LOAD_MAX * rate_max * f64::from(n) / f64::from(STEPS));
    let tail = Tail::default();
    let bounds: Vec<(f64, f64)> = rates
        .map(|rate| (rate, model.service.mean_latency(rate) * 1e3))
        .collect();
    let p99 = bounds
        .iter()
        .map(|(rate, _)| (*rate, tail.p99(&model, *rate) * 1e3));
    let mut lines = vec![
        Line {
            name: "mean, bound φ".to_owned(),
            colour: 0,
            stroke: Stroke::Faint,
            points: bounds.clone(),
        },
        Line {
            name: "99th percentile, κ·φ".to_owned(),
            colour: 1,
            stroke: Stroke::Strong,
            points: p99.collect(),
        },
    ];
    for (n, capacity) in outlook.objectives.iter().enumerate() {
        let ms = capacity.slo_seconds * 1e3;
        let name = if n == 0 { "objectives" } else { "" };
        lines.push(Line {
            name: name.to_owned(),
            stroke: Stroke::Dashed,
            points: vec![(0.0, ms), (LOAD_MAX * rate_max, ms)],
            ..Line::default()
        });
    }
    Panel {
        title: format!("Latency of requests of {tokens} tokens"),
        x: "requests a second".to_owned(),
        y: "milliseconds".to_owned(),
        logarithmic: true,
        lines,
    }
}
