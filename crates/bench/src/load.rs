//! The send times of requests: a load is a rule that gives times, counted from its start.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use intentd_base::input;
use intentd_base::shown;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The arrival process of requests. Rates are in requests a second.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    /// Equal intervals.
    Constant(f64),
    /// Exponentially distributed intervals, as from independent clients.
    Poisson(f64),
    /// Bursts of simultaneous requests at equal intervals.
    Bursts {
        /// Requests in a burst.
        size: u64,
        /// Time from one burst to the next.
        every: Duration,
    },
    /// A rate that changes linearly over the duration.
    Ramp {
        /// The rate at the start.
        from: f64,
        /// The rate at the end.
        to: f64,
    },
    /// Recorded times, in seconds, ascending.
    Trace {
        /// The recorded file.
        file: PathBuf,
        /// The times.
        times: Arc<[f64]>,
    },
}

const FORMS: &str = "expected constant:RATE, poisson:RATE, bursts:SIZE/SECONDS, ramp:FROM..TO, \
                     trace:FILE or article, with rates in requests a second above 0";

/// Most times in a trace.
const TRACE_MAX: usize = 100_000_000;

/// One or more loads of one flag: `poisson:100,200,400`.
#[derive(Debug, Clone, PartialEq)]
pub struct Loads(pub Vec<Load>);

impl FromStr for Loads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        if kind == "trace" {
            let file = Path::new(value);
            let content = input::read_text(file, input::TEXTS)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            return Load::parse_trace(file, &content).map(|load| Self(vec![load]));
        }
        let values = value.split(',');
        let loads = values.map(|value| Load::parse(kind, value).ok_or(FORMS));
        Ok(Self(loads.collect::<Result<_, _>>()?))
    }
}

impl Load {
    fn parse(kind: &str, value: &str) -> Option<Self> {
        let rate = |text: &str| {
            let rate: f64 = text.parse().ok()?;
            (rate > 0.0 && rate <= 1e9).then_some(rate)
        };
        Some(match kind {
            "constant" => Self::Constant(rate(value)?),
            "poisson" => Self::Poisson(rate(value)?),
            "bursts" => {
                let (size, seconds) = value.split_once('/')?;
                let seconds: f64 = seconds.trim_end_matches('s').parse().ok()?;
                Self::Bursts {
                    size: size.parse().ok().filter(|size| *size > 0)?,
                    every: Duration::try_from_secs_f64(seconds)
                        .ok()
                        .filter(|every| *every >= Duration::from_micros(1))?,
                }
            }
            "ramp" => {
                let (from, to) = value.split_once("..")?;
                let (from, to) = (rate(from)?, rate(to)?);
                Self::Ramp { from, to }
            }
            // The load of the client in the article that this project started from.
            "article" if value.is_empty() => Self::Bursts {
                size: 50,
                every: Duration::from_secs(1),
            },
            _ => return None,
        })
    }

    /// Parses a trace: one time in seconds a line, ascending. Anything after a comma, a header line and
    /// lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The first wrong line, or that there is no time at all.
    pub fn parse_trace(file: &Path, content: &str) -> Result<Self, String> {
        let mut times: Vec<f64> = Vec::new();
        for (index, line) in content.lines().enumerate() {
            let first = line.split(',').next().unwrap_or_default().trim();
            if first.is_empty() || first.starts_with('#') {
                continue;
            }
            let Ok(time) = first.parse::<f64>() else {
                if index == 0 {
                    continue;
                }
                let place = format!("{}, line {}", file.display(), index + 1);
                return Err(format!("{place}: expected seconds, found {}", shown(first)));
            };
            let last = times.last().copied().unwrap_or(0.0);
            if !(time >= last && time <= 1e7) || times.len() == TRACE_MAX {
                let place = format!("{}, line {}", file.display(), index + 1);
                return Err(format!(
                    "{place}: expected ascending seconds from 0 on, {TRACE_MAX} at most"
                ));
            }
            times.push(time);
        }
        if times.is_empty() {
            return Err(format!("{}: no times in it", file.display()));
        }
        let file = file.to_owned();
        let times = times.into();
        Ok(Self::Trace { file, times })
    }

    /// The mean rate over `duration`, in requests a second.
    pub fn rate(&self, duration: Duration) -> f64 {
        match self {
            Self::Constant(rate) | Self::Poisson(rate) => *rate,
            Self::Bursts { size, every } => *size as f64 / every.as_secs_f64(),
            Self::Ramp { from, to } => (from + to) / 2.0,
            Self::Trace { times, .. } => {
                let duration = duration.as_secs_f64();
                times.partition_point(|time| *time < duration) as f64 / duration
            }
        }
    }

    /// The load that is sent before the measurement.
    fn warm_up(&self, duration: Duration) -> Self {
        match self {
            Self::Ramp { from, .. } => Self::Poisson(*from),
            Self::Trace { .. } => Self::Poisson(self.rate(duration).max(f64::MIN_POSITIVE)),
            other => other.clone(),
        }
    }

    /// The send times of all requests: first those of the warm-up, then those of the load, which begins when
    /// the warm-up ends. The same `seed` gives the same times.
    pub fn times(
        &self,
        warm_up: Duration,
        duration: Duration,
        seed: u64,
    ) -> impl Iterator<Item = Duration> + use<> {
        let before = self.warm_up(duration).within(warm_up, seed.wrapping_add(1));
        let main = self.within(duration, seed);
        before.chain(main.map(move |time| warm_up + time))
    }

    fn within(&self, duration: Duration, seed: u64) -> Box<dyn Iterator<Item = Duration> + Send> {
        let seconds = duration.as_secs_f64();
        let numbers = (0_u64..).map(|n| n as f64);
        let times: Box<dyn Iterator<Item = f64> + Send> = match self.clone() {
            Self::Constant(rate) => Box::new(numbers.map(move |n| n / rate)),
            Self::Poisson(rate) => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let mut now = 0.0;
                Box::new(std::iter::repeat_with(move || {
                    let uniform: f64 = random.random();
                    now -= (1.0 - uniform).ln() / rate;
                    now
                }))
            }
            Self::Bursts { size, every } => {
                let every = every.as_secs_f64();
                Box::new((0_u64..).map(move |n| (n / size) as f64 * every))
            }
            Self::Ramp { from, to } => {
                // Request n is due when from·t + (to - from)·t²/(2·duration) = n.
                let slope = (to - from) / seconds;
                Box::new(numbers.map_while(move |n| {
                    let root = from * from + 2.0 * slope * n;
                    (root >= 0.0).then(|| 2.0 * n / (from + root.sqrt()))
                }))
            }
            Self::Trace { times, .. } => {
                let mut index = 0;
                Box::new(std::iter::from_fn(move || {
                    index += 1;
                    times.get(index - 1).copied()
                }))
            }
        };
        let times = times.take_while(move |time| *time < seconds);
        // Rounding to nanoseconds may move the last time to the end of the duration.
        let times = times.map(Duration::from_secs_f64);
        Box::new(times.take_while(move |time| *time < duration))
    }
}

impl Display for Load {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(rate) => write!(f, "constant {}/s", short(*rate)),
            Self::Poisson(rate) => write!(f, "poisson {}/s", short(*rate)),
            Self::Bursts { size, every } => write!(f, "{size} every {} s", every.as_secs_f64()),
            Self::Ramp { from, to } => write!(f, "ramp {} to {}/s", short(*from), short(*to)),
            Self::Trace { file, .. } => write!(f, "trace {}", file.display()),
        }
    }
}

/// A rate with five significant digits.
fn short(rate: f64) -> String {
    let decimals = (4 - rate.log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{rate:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Load {
        let Loads(mut loads) = text.parse().unwrap();
        assert_eq!(loads.len(), 1);
        loads.remove(0)
    }

    fn seconds(text: &str, duration: f64) -> Vec<f64> {
        let times = load(text).times(Duration::ZERO, Duration::from_secs_f64(duration), 7);
        times.map(|time| time.as_secs_f64()).collect()
    }

    #[test]
    fn constant_loads_and_bursts_have_exact_times() {
        assert_eq!(seconds("constant:4", 1.0), [0.0, 0.25, 0.5, 0.75]);
        let times = seconds("bursts:2/0.5s", 1.0);
        assert_eq!(times, [0.0, 0.0, 0.5, 0.5]);
        let times = seconds("article", 100.0);
        assert_eq!(times.len(), 5000);
        assert_eq!(times[49..51], [0.0, 1.0]);
    }

    #[test]
    fn a_poisson_load_has_its_rate_and_the_variance_of_independent_clients() {
        let times = seconds("poisson:1000", 50.0);
        // A Poisson count of 50,000 has a standard deviation of 224.
        assert!(
            (times.len() as f64 - 50_000.0).abs() < 1200.0,
            "{}",
            times.len()
        );
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03);
        assert_eq!(times, seconds("poisson:1000", 50.0));
    }

    #[test]
    fn a_ramp_rises_or_falls_linearly() {
        for (text, first_half) in [("ramp:100..300", 150.0), ("ramp:300..100", 250.0)] {
            let times = seconds(text, 10.0);
            assert!(
                (times.len() as f64 - 2000.0).abs() <= 1.0,
                "{text}: {}",
                times.len()
            );
            let early = times.iter().filter(|time| **time < 5.0).count() as f64;
            assert!((early - 5.0 * first_half).abs() <= 1.0, "{text}: {early}");
            assert!(times.is_sorted());
        }
        assert!(!seconds("ramp:100..1", 10.0).is_empty());
        // Request 54, counted from 0, would be due when the ramp ends.
        assert_eq!(seconds("ramp:31..5", 3.0).len(), 54);
    }

    #[test]
    fn a_warm_up_precedes_the_load_at_the_same_rate() {
        let load = load("constant:10");
        let times: Vec<Duration> = load
            .times(Duration::from_secs(2), Duration::from_secs(1), 0)
            .collect();
        assert_eq!(times.len(), 30);
        assert!(times.is_sorted());
        assert_eq!(times.iter().filter(|t| t.as_secs() >= 2).count(), 10);
    }

    #[test]
    fn a_trace_is_read_and_mistakes_name_their_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("trace.csv");
        let read = |content: &str| {
            std::fs::write(&file, content).unwrap();
            format!("trace:{}", file.display()).parse::<Loads>()
        };
        let Loads(loads) = read("seconds,user\n0.5,a\n# later\n\n0.5\n3,b\n").unwrap();
        let times = loads[0].times(Duration::ZERO, Duration::from_secs(2), 0);
        let times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
        assert_eq!(times, [0.5, 0.5]);
        assert_eq!(loads[0].rate(Duration::from_secs(2)), 1.0);
        for (content, part) in [
            ("1\nx", "line 2"),
            ("1\n0.5", "ascending"),
            ("-1", "ascending"),
            ("1\nNaN", "ascending"),
            ("\n", "no times"),
        ] {
            let error = read(content).unwrap_err();
            assert!(error.contains(part), "{content:?}: {error}");
        }
        assert!(
            "trace:/no/such/file"
                .parse::<Loads>()
                .unwrap_err()
                .contains("/no/such/file")
        );
    }

    #[test]
    fn lists_of_loads_are_parsed_and_mistakes_are_refused() {
        let Loads(loads) = "poisson:100,200.5".parse().unwrap();
        assert_eq!(loads, [Load::Poisson(100.0), Load::Poisson(200.5)]);
        for text in [
            "",
            "poisson",
            "poisson:",
            "poisson:0",
            "constant:-1",
            "constant:inf",
            "constant:NaN",
            "bursts:50",
            "bursts:0/1s",
            "bursts:5/0",
            "ramp:5",
            "ramp:0..5",
            "article:3",
            "wave:1",
        ] {
            assert!(text.parse::<Loads>().is_err(), "{text}");
        }
        assert_eq!(load("poisson:123.456").to_string(), "poisson 123.46/s");
        assert_eq!(load("constant:0.5").to_string(), "constant 0.5/s");
    }
}
