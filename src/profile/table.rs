//! A profile as tables, for people.

use std::fmt::Write as _;

use super::file::Profile;
use super::grid::Shape;
use super::outlook::{LimitedConcurrency, ObjectiveCapacity, Outlook};
use super::point::{Point, SkipReason, Skipped};
use crate::bench::aligned;

/// Relative error above which a text length is reported as not linear.
const NOT_LINEAR: f64 = 0.15;

/// Formats the measured times and the outlook.
pub fn table(profile: &Profile, outlook: &Outlook) -> String {
    let mut text = format!(
        "{} on {}, {} cores\n\n",
        profile.model.name, profile.engine, profile.cores
    );
    text.push_str("milliseconds a batch, median (texts down, tokens of each across)\n");
    text.push_str(&grid(profile, |point| point.seconds_median * 1e3));
    text.push_str("\ntexts a second\n");
    text.push_str(&grid(profile, |point| {
        point.shape.texts as f64 / point.seconds_median
    }));
    text.push_str(&left_out(&profile.skipped));
    text.push('\n');
    text.push_str(&fit(profile));
    let tokens = outlook.request_tokens;
    let _ = writeln!(
        text,
        "\nrequests of {tokens} tokens, by the engine alone (HTTP takes its part, more on shared cores)"
    );
    text.push_str(&objectives(&outlook.objectives));
    text.push_str("\nsettings that follow, at 80 % utilization\n");
    text.push_str(&settings(&outlook.objectives));
    let _ = writeln!(
        text,
        "\ncontainerConcurrency: requests of {tokens} tokens a second at best ({} without a limit)",
        short(outlook.max_rps)
    );
    text.push_str(&limits(&outlook.container_concurrency));
    text
}

/// A table with a row for each number of texts and a column for each number of tokens.
fn grid(profile: &Profile, value: impl Fn(&Point) -> f64) -> String {
    let mut columns: Vec<usize> = profile.points.iter().map(|p| p.shape.tokens).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut texts: Vec<usize> = profile.points.iter().map(|p| p.shape.texts).collect();
    texts.sort_unstable();
    texts.dedup();
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(usize::to_string));
    let mut rows = vec![head];
    for texts in texts {
        let mut row = vec![texts.to_string()];
        row.extend(columns.iter().map(|tokens| {
            let shape = Shape {
                texts,
                tokens: *tokens,
            };
            let point = profile.point(shape);
            point.map_or_else(|| "-".to_owned(), |point| short(value(point)))
        }));
        rows.push(row);
    }
    aligned(&rows)
}

fn left_out(skipped: &[Skipped]) -> String {
    let mut text = String::new();
    for (reason, why) in [
        (SkipReason::Time, "no time within --duration"),
        (SkipReason::Memory, "no memory on the device"),
    ] {
        let sizes = || skipped.iter().filter(|skipped| skipped.reason == reason);
        let Some(least) = sizes().map(|skipped| skipped.shape.total()).min() else {
            continue;
        };
        let seconds: f64 = sizes().map(|skipped| skipped.seconds_expected).sum();
        let _ = write!(
            text,
            "left out: {} batches of {least} tokens and more ({why}",
            sizes().count()
        );
        if reason == SkipReason::Time {
            let _ = write!(text, "; once each would take {} s", short(seconds));
        }
        text.push_str(")\n");
    }
    text
}

/// The line, and the text lengths that do not follow it.
fn fit(profile: &Profile) -> String {
    let fit = &profile.fit;
    let mut text = format!(
        "a batch of n tokens takes {} ms + n * {} us (texts of up to {} tokens; off by {:.1} % on \
         average, {:.1} % at most)\n",
        short(fit.tau0_seconds * 1e3),
        short(fit.alpha_seconds * 1e6),
        fit.text_tokens,
        fit.error_ratio * 100.0,
        fit.error_ratio_max * 100.0
    );
    let mut columns: Vec<usize> = profile.points.iter().map(|p| p.shape.tokens).collect();
    columns.sort_unstable();
    columns.dedup();
    for tokens in columns {
        let column = profile.points.iter().filter(|p| p.shape.tokens == tokens);
        let mut distances: Vec<f64> = column.map(|point| fit.distance(point)).collect();
        distances.sort_by(f64::total_cmp);
        // The median is robust against a batch that was measured while the machine was busy.
        let far = distances[distances.len() / 2];
        if far.abs() <= NOT_LINEAR {
            continue;
        }
        let (percent, which) = (
            100.0 * far.abs(),
            if far > 0.0 { "longer" } else { "shorter" },
        );
        let why = if tokens > fit.text_tokens {
            ": what attention costs grows with the square of the length"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "  not linear: batches of {tokens}-token texts are {which} than that by {percent:.0} % \
             of their time{why}"
        );
    }
    text
}

fn objectives(objectives: &[ObjectiveCapacity]) -> String {
    let head = [
        "99 % within",
        "req/s",
        "in flight",
        "most req/s",
        "largest batch",
        "kappa",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for capacity in objectives {
        let feasible = if capacity.feasible {
            ""
        } else {
            "cannot be kept"
        };
        rows.push(vec![
            milliseconds(capacity),
            short(capacity.capacity_rps),
            short(capacity.in_flight),
            short(capacity.max_rps),
            format!("{:.0}", capacity.batch_max),
            format!("{:.2}", capacity.kappa),
            feasible.to_owned(),
        ]);
    }
    aligned(&rows)
}

fn settings(objectives: &[ObjectiveCapacity]) -> String {
    let head = [
        "99 % within",
        "Knative rps target",
        "or concurrency",
        "KEDA demand_replicas",
        "HPA demand_percent",
        "Kafka lagThreshold",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for capacity in objectives.iter().filter(|capacity| capacity.feasible) {
        let settings = &capacity.recommended;
        rows.push(vec![
            milliseconds(capacity),
            settings.knative.target.to_string(),
            settings.knative_concurrency.target.to_string(),
            settings.keda.target_value.to_owned(),
            settings.hpa.target_average_value.to_owned(),
            settings.kafka.lag_threshold.to_string(),
        ]);
    }
    aligned(&rows)
}

fn limits(limits: &[LimitedConcurrency]) -> String {
    let head = [
        "limit",
        "req/s",
        "of the engine",
        "servers for the load of one",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for limit in limits {
        rows.push(vec![
            limit.container_concurrency.to_string(),
            short(limit.max_rps),
            format!("{:.0} %", 100.0 * limit.share),
            format!("{} ({:.2})", limit.replicas, 1.0 / limit.share),
        ]);
    }
    aligned(&rows)
}

fn milliseconds(capacity: &ObjectiveCapacity) -> String {
    format!("{} ms", short(capacity.slo_seconds * 1e3))
}

/// A number with at least three significant digits.
fn short(value: f64) -> String {
    if value <= 0.0 {
        return "0".to_owned();
    }
    let decimals = (2 - value.log10().floor() as i32).clamp(0, 4) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::profile;
    use super::*;

    #[test]
    fn the_table_has_the_measured_values_and_names_what_is_not_linear() {
        let profile = profile();
        let text = table(&profile, &Outlook::new(&profile, 16, &[1e-3, 0.1]));
        for part in [
            "intent-snips on cpu f32, 2 threads, 2 cores",
            // 1 ms and 10 us a token.
            "1.08  1.16  1.32  1.64",
            "a batch of n tokens takes 1.00 ms + n * 10.0 us",
            "batches of 512-token texts are longer than that by 50 %",
            "left out: 1 batches of 4096 tokens and more (no time",
            "cannot be kept",
            "containerConcurrency",
        ] {
            assert!(text.contains(part), "{part:?} is missing from:\n{text}");
        }
        assert!(!text.contains("64-token texts"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (1.0, "1.00"),
            (12345.6, "12346"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
