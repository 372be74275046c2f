//! Why the demand is what it is: sentences with numbers.

use super::demand::Demand;
use super::estimator::Estimate;
use super::missed::Bounds;
use super::queueing::CAPACITY_MIN;
use super::snapshot::Snapshot;

/// Contention that is worth a sentence.
const CONTENTION: f64 = 1.1;

/// Confidence below which the capacity is called a guess.
const SURE: f64 = 0.8;

/// The capacity counts as that of the engine and the host from this share of it.
const NEARLY: f64 = 0.99;

/// What a demand follows from.
pub(super) struct Explanation<'a> {
    /// The measured part of the snapshot.
    pub(super) snapshot: &'a Snapshot,
    pub(super) demand: &'a Demand,
    pub(super) estimate: &'a Estimate,
    /// Bounds of the capacity in requests per second, by what was seen.
    pub(super) bounds: Option<Bounds>,
    /// Whether the objective is missed now.
    pub(super) is_missed: bool,
    /// Cores that may be used.
    pub(super) cores: f64,
}

impl Explanation<'_> {
    /// The sentences about a server whose capacity is not known.
    pub(super) fn of_unknown_capacity(offered: f64) -> Vec<String> {
        let then = if offered > 0.0 {
            "any load asks for one replica"
        } else {
            "without load that is no replica"
        };
        vec![format!("Nothing is known about the engine yet, so {then}.")]
    }

    /// The sentences: the load, the capacity, what slows the server, and the demand.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut sentences = vec![self.load(), self.capacity()];
        sentences.extend(self.slowness());
        sentences.extend(self.doubt());
        sentences.push(self.replicas());
        sentences
    }

    fn load(&self) -> String {
        let Snapshot {
            offered_rps,
            refused_rps,
            request_tokens,
            ..
        } = self.snapshot;
        if *offered_rps == 0.0 {
            return "No request has come lately.".to_owned();
        }
        let refused = if *refused_rps > 0.0 {
            format!("; {}/s are refused", number(*refused_rps))
        } else {
            String::new()
        };
        format!(
            "{} requests/s are offered, of {} tokens on average{refused}.",
            number(*offered_rps),
            number(*request_tokens)
        )
    }

    fn capacity(&self) -> String {
        let capacity = number(self.demand.capacity);
        let Estimate {
            capacity: computed,
            usable,
            learned,
            ..
        } = self.estimate;
        let objective = millis(self.snapshot.slo_seconds);
        let bounds = self.bounds.unwrap_or(Bounds {
            least: 0.0,
            most: None,
            quiet: 0.0,
        });
        if bounds.most.is_some_and(|most| most < computed.rate) {
            let quiet = bounds.quiet;
            let has_objective = self.snapshot.slo_seconds > 0.0;
            let missed = match (has_objective, self.is_missed) {
                (true, true) => format!("the objective of {objective} is being missed"),
                (true, false) => {
                    format!("the objective of {objective} was missed {quiet:.0} s ago")
                }
                (false, true) => {
                    "requests are being refused, or not answered before their deadline".to_owned()
                }
                (false, false) => format!(
                    "requests were refused, or not answered before their deadline, {quiet:.0} s ago"
                ),
            };
            // What is answered in time may be nothing at all.
            let by = if self.demand.capacity > CAPACITY_MIN * usable {
                "by what was answered in time"
            } else {
                "to the least that is ever published"
            };
            return format!(
                "Capacity {capacity}/s: {missed}, so it is bounded {by}. Without that it would be {}/s.",
                number(computed.rate)
            );
        }
        if bounds.least > computed.rate {
            return format!(
                "Capacity {capacity}/s: so many are being answered in time, where the model says {}/s.",
                number(computed.rate)
            );
        }
        if self.snapshot.slo_seconds == 0.0 {
            return format!(
                "Capacity {capacity}/s: what the engine and the host sustain; there is no objective."
            );
        }
        if !computed.feasible {
            return format!(
                "Capacity {capacity}/s: what the engine and the host sustain. No rate keeps the objective of {objective}: \
                 even a request alone takes longer too often."
            );
        }
        if computed.rate >= NEARLY * usable {
            return format!(
                "Capacity {capacity}/s: what the engine and the host sustain; up to there 99 of 100 requests are answered \
                 within {objective}."
            );
        }
        format!(
            "Capacity {capacity}/s: the highest rate at which 99 of 100 requests are answered within {objective}; the p99 \
             is {} times the bound on the mean in the queue, and {} pass outside it. Without the objective it would be {}/s.",
            number(learned.tail),
            millis(learned.overhead),
            number(*usable)
        )
    }

    fn slowness(&self) -> Option<String> {
        let contention = self.estimate.learned.contention;
        (contention > CONTENTION).then(|| {
            format!(
                "Batches take {} times as long as their own work: others use the same cores, or the CPU limit is too low \
                 ({} cores may be used).",
                number(contention),
                number(self.cores)
            )
        })
    }

    fn doubt(&self) -> Option<String> {
        let confidence = self.estimate.confidence;
        (confidence < SURE).then(|| {
            format!(
                "The capacity is not well known yet (confidence {confidence:.2}): it needs load to be learned from."
            )
        })
    }

    fn replicas(&self) -> String {
        let Demand {
            offered,
            capacity,
            utilization,
            waiting,
            waiting_expected,
            drain,
            ..
        } = *self.demand;
        let replicas = self.demand.replicas();
        let mut parts = vec![format!(
            "{} mean requests/s at {:.0} % of {}/s a replica",
            number(offered),
            100.0 * utilization,
            number(capacity)
        )];
        let trend = self.demand.bounded_trend();
        if trend != 0.0 {
            parts.push(format!("a trend of {}/s", number(trend)));
        }
        if waiting > waiting_expected {
            parts.push(format!(
                "{} waiting requests, to be answered within {drain:.0} s",
                number(waiting - waiting_expected)
            ));
        }
        let most = if self.demand.is_bounded() {
            " (a load of more than ten times the capacity counts as ten times)"
        } else {
            ""
        };
        format!(
            "Demand {} replicas: {}{most}.",
            number(replicas),
            parts.join(", and ")
        )
    }
}

/// A number with three significant digits, without an exponent.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    match usize::try_from(digits) {
        Ok(digits) => {
            let text = format!("{value:.digits$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        Err(_) => format!("{value:.0}"),
    }
}

/// Seconds as milliseconds.
fn millis(seconds: f64) -> String {
    format!("{} ms", number(1e3 * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::learned::{Learned, RequestCost};
    use crate::autoscale::queueing::Capacity;
    use crate::autoscale::{HintSettings, Trend};

    /// The sentence about the capacity of a server whose model says 1,000/s, with these bounds.
    fn capacity(objective: Option<f64>, capacity: f64, bounds: Bounds, is_missed: bool) -> String {
        let settings = HintSettings {
            objective,
            utilization: 0.8,
            drain: 30.0,
            trend: Trend::Off,
            pod: String::new(),
            model: String::new(),
        };
        let demand = Demand {
            offered: 900.0,
            trend: 0.0,
            capacity,
            utilization: 0.8,
            waiting: 0.0,
            waiting_expected: 0.0,
            drain: 30.0,
        };
        let estimate = Estimate {
            capacity: Capacity {
                rate: 1000.0,
                feasible: true,
                rate_max: 1500.0,
            },
            usable: 1400.0,
            learned: Learned {
                setup: 1e-3,
                token: 1e-5,
                batch_tokens: 1024.0,
                contention: 1.0,
                host: RequestCost::GUESS,
                byte: 0.0,
                overhead: 0.0,
                tail: 2.0,
            },
            in_flight: 1.0,
            waiting: 0.0,
            batch_max: 32.0,
            confidence: 0.9,
        };
        Explanation {
            snapshot: &Snapshot::unknown(&settings),
            demand: &demand,
            estimate: &estimate,
            bounds: Some(bounds),
            is_missed,
            cores: 2.0,
        }
        .capacity()
    }

    #[test]
    fn what_bounds_the_capacity_is_said() {
        let most = |most, quiet| Bounds {
            least: 0.0,
            most: Some(most),
            quiet,
        };
        let told = |text: String, parts: &[&str]| {
            for part in parts {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        };
        told(
            capacity(Some(0.1), 400.0, most(400.0, 0.0), true),
            &[
                "400/s",
                "100 ms is being missed",
                "by what was answered in time",
                "1000/s",
            ],
        );
        told(
            capacity(Some(0.1), 400.0, most(400.0, 14.2), false),
            &["was missed 14 s ago"],
        );
        told(
            capacity(None, 70.0, most(70.0, 0.0), true),
            &[
                "not answered before their deadline",
                "the least that is ever published",
            ],
        );
        let least = Bounds {
            least: 1200.0,
            most: None,
            quiet: 60.0,
        };
        told(
            capacity(Some(0.1), 1200.0, least, false),
            &["1200/s: so many are being answered in time"],
        );
        let none = Bounds {
            least: 0.0,
            ..least
        };
        told(
            capacity(Some(0.1), 1000.0, none, false),
            &["the highest rate at which 99 of 100"],
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.012345, "0.0123"),
            (0.5, "0.5"),
            (1.0, "1"),
            (1.2345, "1.23"),
            (12.0, "12"),
            (412.4, "412"),
            (26_055.2, "26055"),
            (-3.0, "-3"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(millis(0.1), "100 ms");
        assert_eq!(millis(0.00012), "0.12 ms");
    }
}
