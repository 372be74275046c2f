//! What happened, as a table and as a picture.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use intentd::bench::plot::{Line, Panel, Stroke};
use intentd::kafka::{Produced, Production};

use super::fleet::Seen;
use super::gateway::{Answered, Gateway, since_1970};

/// Seconds of a row of the table.
const ROW: f64 = 10.0;

/// A moment.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: f64,
    seen: Seen,
    waiting: usize,
    answered: usize,
}

/// What happened.
pub(crate) struct Story {
    start: Instant,
    began: Duration,
    gateway: Arc<Gateway>,
    /// When messages were written, in seconds.
    written: Vec<f64>,
    moments: Vec<Moment>,
    answers: Vec<Answered>,
    failed: u64,
}

impl Story {
    pub(crate) fn new(start: Instant, gateway: Arc<Gateway>, production: &Production) -> Self {
        let times = production
            .load
            .times(Duration::ZERO, production.duration, production.seed);
        Self {
            start,
            began: since_1970(SystemTime::now()),
            gateway,
            written: times.map(|time| time.as_secs_f64()).collect(),
            moments: Vec::new(),
            answers: Vec::new(),
            failed: 0,
        }
    }

    /// Adds a moment.
    pub(crate) fn tell(&mut self, seen: &Seen) {
        self.moments.push(Moment {
            at: self.start.elapsed().as_secs_f64(),
            seen: *seen,
            waiting: self.gateway.waiting(),
            answered: self.gateway.answered(),
        });
    }

    /// Nothing more happens.
    pub(crate) fn end(&mut self, produced: &Produced) {
        self.answers = self.gateway.messages().values().copied().collect();
        self.answers.sort_by_key(|answer| answer.at);
        self.failed = produced.failed.values().sum();
    }

    fn at(&self, answer: &Answered) -> f64 {
        answer.at.saturating_sub(self.began).as_secs_f64()
    }

    /// Percentiles of the latency of messages answered in a span, in seconds.
    fn latency(&self, span: std::ops::Range<f64>) -> Option<[f64; 2]> {
        let within = self
            .answers
            .iter()
            .filter(|answer| span.contains(&self.at(answer)));
        let mut found: Vec<f64> = within.map(|answer| answer.latency.as_secs_f64()).collect();
        found.sort_by(f64::total_cmp);
        let at = |part: f64| found.get(((found.len() as f64 * part) as usize).min(found.len() - 1));
        if found.is_empty() {
            None
        } else {
            Some([*at(0.5)?, *at(0.99)?])
        }
    }

    /// A row for ten seconds each.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| until | written | classified | waiting | demand | replicas | ready | p50 s | p99 s |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        let end = self.moments.last().map_or(0.0, |moment| moment.at);
        let mut from = 0.0;
        while from < end {
            let until = from + ROW;
            let span = from..until;
            let written = self.written.iter().filter(|at| **at < until).count();
            let classified = self
                .answers
                .iter()
                .filter(|answer| self.at(answer) < until)
                .count();
            let moments: Vec<&Moment> = self
                .moments
                .iter()
                .filter(|moment| span.contains(&moment.at))
                .collect();
            let most =
                |of: &dyn Fn(&Moment) -> f64| moments.iter().map(|m| of(m)).fold(0.0, f64::max);
            let latency = self.latency(span.clone());
            let [p50, p99] = latency.map_or(["".to_owned(), "".to_owned()], |values| {
                values.map(|seconds| format!("{seconds:.2}"))
            });
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {until:.0} s | {written} | {classified} | {:.0} | {:.2} | {:.0} | {:.0} | {p50} | {p99} |",
                most(&|m| m.seen.queue_depth + m.waiting as f64),
                most(&|m| m.seen.demand),
                most(&|m| m.seen.running as f64),
                most(&|m| m.seen.ready as f64),
            );
            from = until;
        }
        text
    }

    /// Whether every message was classified exactly once, which is also said.
    pub(crate) fn verdict(&self, acknowledged: u64) -> bool {
        let once = self
            .answers
            .iter()
            .filter(|answer| answer.times == 1)
            .count() as u64;
        let more = self.answers.len() as u64 - once;
        let lost = acknowledged.saturating_sub(self.answers.len() as u64);
        println!(
            "{acknowledged} messages: {once} classified exactly once, {more} more often, {lost} never; \
             {} answers were refusals and tried again; {} messages were not written",
            self.gateway.refused(),
            self.failed
        );
        once == acknowledged && more == 0 && self.failed == 0
    }

    /// Messages, what waits, demand and replicas, latency: over time.
    pub(crate) fn draw(&self) -> Vec<Panel> {
        let of = |value: &dyn Fn(&Moment) -> f64| -> Vec<(f64, f64)> {
            // One a second is enough for the eye.
            self.moments
                .iter()
                .step_by(2)
                .map(|moment| (moment.at, value(moment)))
                .collect()
        };
        let written = |at: f64| self.written.partition_point(|time| *time <= at) as f64;
        let latencies = |index: usize| -> Vec<(f64, f64)> {
            let seconds = self.moments.last().map_or(0, |moment| moment.at as u32);
            let spans = (0..seconds).map(f64::from);
            spans
                .filter_map(|from| Some((from + 0.5, self.latency(from..from + 1.0)?[index])))
                .collect()
        };
        vec![
            panel(
                "Messages written to Kafka and classified",
                "messages",
                vec![
                    line("written", 0, Stroke::Dashed, of(&|m| written(m.at))),
                    line("classified", 1, Stroke::Strong, of(&|m| m.answered as f64)),
                ],
            ),
            panel(
                "What waits in the replicas, and for the first of them",
                "messages",
                vec![
                    line(
                        "queue depth",
                        0,
                        Stroke::Strong,
                        of(&|m| m.seen.queue_depth),
                    ),
                    line(
                        "without a replica",
                        1,
                        Stroke::Faint,
                        of(&|m| m.waiting as f64),
                    ),
                ],
            ),
            panel(
                "Published demand, and the replicas that follow it",
                "replicas",
                vec![
                    line("demand", 0, Stroke::Strong, of(&|m| m.seen.demand)),
                    line("running", 1, Stroke::Dashed, of(&|m| m.seen.running as f64)),
                    line("ready", 2, Stroke::Faint, of(&|m| m.seen.ready as f64)),
                ],
            ),
            panel(
                "From a message's writing to its answer",
                "seconds",
                vec![
                    line("p50", 0, Stroke::Strong, latencies(0)),
                    line("p99", 1, Stroke::Faint, latencies(1)),
                ],
            ),
        ]
    }
}

fn line(name: &str, colour: usize, stroke: Stroke, points: Vec<(f64, f64)>) -> Line {
    Line {
        name: name.to_owned(),
        colour,
        stroke,
        points,
    }
}

fn panel(title: &str, y: &str, lines: Vec<Line>) -> Panel {
    Panel {
        title: title.to_owned(),
        x: "seconds".to_owned(),
        y: y.to_owned(),
        logarithmic: false,
        lines,
    }
}
