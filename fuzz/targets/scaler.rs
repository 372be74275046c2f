//! What the scaler reads: answers of replicas and of Prometheus, metadata of triggers; and what it makes of
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use intentd::scaler::{
    Defaults, Followed, Known, Patience, Place, Round, read_prometheus, read_report, read_trigger,
};

use super::check_length;

/// The most demand that a replica may report.
const DEMAND_MAX: f64 = 1e6;

/// `r` and what a replica says at `/autoscaling`, or another letter and an answer of Prometheus.
pub fn scaler_answer(data: &[u8]) {
    let [kind, body @ ..] = data else {
        return;
    };
    if *kind == b'r' {
        match read_report(body) {
            Ok((demand, is_busy)) => {
                assert!((0.0..=DEMAND_MAX).contains(&demand));
                let queue = u8::from(is_busy);
                let again = format!(r#"{{"demand_replicas": {demand:?}, "queue_depth": {queue}}}"#);
                let again = read_report(again.as_bytes()).expect("it is such a number");
                // The JSON library rounds the last digit its own way.
                assert!((again.0 - demand).abs() <= 1e-12 * demand);
                assert_eq!(again.1, is_busy);
            }
            Err(why) => check_length(&why),
        }
        return;
    }
    match read_prometheus(body) {
        Ok(value) => {
            assert!(!value.is_nan());
            let sample = format!(r#"[0, "{value}"]"#);
            for (kind, result) in [
                ("scalar", sample.clone()),
                ("vector", format!(r#"[{{"value": {sample}}}]"#)),
            ] {
                let data = format!(r#"{{"resultType": "{kind}", "result": {result}}}"#);
                let again = read_prometheus(format!(r#"{{"data": {data}}}"#).as_bytes());
                assert_eq!(again, Ok(value));
            }
        }
        Err(why) => check_length(&why),
    }
}

/// Lines `key=value` are metadata. Bit 0 of the first byte is a scaler that takes its sources from its flags
/// alone, bit 1 one whose flags name some.
pub fn scaler_trigger(data: &[u8]) {
    let [flags, data @ ..] = data else {
        return;
    };
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    static DEFAULTS: LazyLock<[Defaults; 4]> =
        LazyLock::new(|| [0, 1, 2, 3].map(|flags| defaults(flags & 1 != 0, flags & 2 != 0)));
    let defaults = &DEFAULTS[usize::from(flags & 3)];
    let pairs = || text.lines().filter_map(|line| line.split_once('='));
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let metadata: HashMap<String, String> = pairs().map(owned).collect();
    let asked = read_trigger(&metadata, defaults);
    // A map has no order, and what is read from it must not depend on any.
    let again: HashMap<String, String> = metadata.clone().into_iter().collect();
    assert_eq!(asked, read_trigger(&again, defaults));
    match asked {
        Ok(asked) => {
            assert!(asked.target.is_finite() && asked.target > 0.0);
            assert!(asked.activation.is_finite() && asked.activation >= 0.0);
            assert!((1..=64).contains(&asked.places));
            assert!(asked.thresholds.len() <= 2);
            assert!(
                asked
                    .thresholds
                    .iter()
                    .all(|threshold| threshold.is_finite())
            );
        }
        Err(mistakes) => {
            assert!((1..=11).contains(&mistakes.len()));
            mistakes.iter().for_each(|mistake| check_length(mistake));
        }
    }
    for (_, value) in pairs() {
        if let Ok(place) = value.parse::<Place>() {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
    }
}

fn defaults(is_fixed: bool, has_sources: bool) -> Defaults {
    let place = "replicas.ns.svc:9100".parse().expect("a place");
    let some = |text: &str| has_sources.then(|| text.to_owned());
    Defaults {
        places: if has_sources { vec![place] } else { Vec::new() },
        activation: 0.0,
        prometheus: some("http://prometheus:9090").map(|url| url.parse().expect("a URL")),
        query: some("sum(up)"),
        threshold: 0.0,
        // A build without Kafka refuses metadata that asks for it, and so must have no flags that do.
        bootstrap: None,
        topic: None,
        group: None,
        lag: 0.0,
        kafka_settings: Vec::new(),
        is_fixed,
    }
}

const PLACES: usize = 2;

/// Room for addresses: fewer than there are.
const REPLICAS_MAX: usize = 6;

/// Limits of the signs of work.
const SIGNS: [f64; 2] = [0.0, 5.0];

const PATIENCE: Patience = Patience {
    keep: Duration::from_secs(10),
    stale_after: Duration::from_secs(30),
};

/// Rounds by lines: `p`, a place and digits are its addresses from now on, `p`, a place and `!` that nobody
/// can say; `a`, an address and a body are its answer in this round, `r` and an address that it refuses
/// connections; `s`, a sign and a body are its answer, `f` and a sign that there is none; `t` and a number
/// end the round, so many tenths of a second after the one before.
pub fn scaler_replicas(data: &[u8]) {
    let mut case = Case::default();
    for line in data.split(|byte| *byte == b'\n').take(200) {
        let [kind, line @ ..] = line else {
            continue;
        };
        if *kind == b't' {
            let tenths = std::str::from_utf8(line)
                .ok()
                .and_then(|text| text.parse::<u16>().ok());
            case.end_round(Duration::from_millis(100) * u32::from(tenths.unwrap_or(10)));
        } else if let [index, rest @ ..] = line {
            case.take(*kind, usize::from(index & 7), rest);
        }
    }
    case.end_round(Duration::from_secs(1));
}

fn address(index: u8) -> SocketAddr {
    let host = u16::from(index & 7);
    let ip = match host {
        0..4 => IpAddr::from(Ipv4Addr::new(10, 0, 0, index & 7)),
        _ => IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host)),
    };
    SocketAddr::from((ip, 9100))
}

/// The rounds of a case, and what is known of them without the scaler.
struct Case<'a> {
    followed: Followed,
    now: Duration,
    places: [Result<Vec<SocketAddr>, String>; PLACES],
    answers: BTreeMap<SocketAddr, Option<&'a [u8]>>,
    signs: Vec<(usize, Result<&'a [u8], String>)>,
    /// The last value of each sign.
    values: [Option<f64>; SIGNS.len()],
    before: Option<Known>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            followed: Followed::new(PLACES, REPLICAS_MAX, &SIGNS, PATIENCE),
            now: Duration::ZERO,
            places: [Ok(Vec::new()), Ok(Vec::new())],
            answers: BTreeMap::new(),
            signs: Vec::new(),
            values: Default::default(),
            before: None,
        }
    }
}

impl<'a> Case<'a> {
    fn take(&mut self, kind: u8, index: usize, rest: &'a [u8]) {
        let why = || "nobody knows".to_owned();
        match kind {
            b'p' if rest == b"!" => self.places[index % PLACES] = Err(why()),
            b'p' => {
                let addresses: BTreeSet<_> = rest.iter().copied().map(address).collect();
                self.places[index % PLACES] = Ok(addresses.into_iter().collect());
            }
            b'a' => drop(self.answers.insert(address(index as u8), Some(rest))),
            b'r' => drop(self.answers.insert(address(index as u8), None)),
            b's' => {
                let sign = index % SIGNS.len();
                self.signs.push((sign, Ok(rest)));
                let value = read_prometheus(rest).ok();
                self.values[sign] = value.or(self.values[sign]);
            }
            b'f' => self.signs.push((index % SIGNS.len(), Err(why()))),
            _ => {}
        }
    }

    fn end_round(&mut self, after: Duration) {
        self.now += after;
        let answers = std::mem::take(&mut self.answers);
        let known = self.followed.round(Round {
            at: self.now,
            places: self.places.to_vec(),
            answers: answers.clone(),
            signs: std::mem::take(&mut self.signs),
        });
        self.check(&known, &answers);
        self.before = Some(known);
    }

    fn check(&self, known: &Known, answers: &BTreeMap<SocketAddr, Option<&[u8]>>) {
        let Known {
            demand,
            is_active,
            replicas: [fresh, kept, silent],
            unknown,
        } = known;
        let most = DEMAND_MAX * 8.0;
        assert!(demand.is_none_or(|demand| (0.0..=most).contains(&demand)));
        assert!(demand.is_some() || !unknown.is_empty() || self.values.contains(&None));
        assert!(unknown.len() <= 5 * 1300);
        assert!(fresh + kept + silent <= 8);
        if let Some(Known {
            demand: Some(before),
            ..
        }) = self.before
            && *kept > 0
            && self.now <= PATIENCE.stale_after
        {
            assert!(
                demand.is_some_and(|demand| demand >= before),
                "the sum fell"
            );
        }
        let found = self
            .places
            .iter()
            .map(|place| place.as_ref().map_or(&[][..], Vec::as_slice));
        let asked: BTreeSet<SocketAddr> = found.clone().flatten().copied().collect();
        let is_resolved = self.places.iter().all(Result::is_ok)
            && found.map(<[_]>::len).sum::<usize>() <= REPLICAS_MAX;
        let reports = asked.iter().map(|address| match answers.get(address) {
            Some(Some(body)) => read_report(body).ok(),
            _ => None,
        });
        let reports: Vec<Option<(f64, bool)>> = reports.collect();
        if *is_active == Some(false) {
            assert!(is_resolved, "an address may be missing");
            // Two that are one pod are counted once; each of them says the same, or is wrong.
            for (address, report) in asked.iter().zip(&reports) {
                let is_refused = matches!(answers.get(address), Some(None));
                assert!(report.is_some() || is_refused, "{address} may be busy");
            }
            for (value, limit) in self.values.iter().zip(SIGNS) {
                assert!(
                    value.is_some_and(|value| value <= limit),
                    "there may be work"
                );
            }
        }
        let has_pods = answers
            .values()
            .flatten()
            .any(|body| body.windows(3).any(|w| w == b"pod"));
        let all: Option<Vec<(f64, bool)>> = reports.into_iter().collect();
        let Some(all) = all.filter(|_| is_resolved && !has_pods) else {
            return;
        };
        let sum: f64 = all.iter().map(|(demand, _)| demand).sum();
        assert!(
            demand.is_some_and(|demand| (demand - sum).abs() <= 1e-9 * sum),
            "{demand:?} {sum}"
        );
        assert_eq!([*fresh, *kept, *silent], [all.len(), 0, 0]);
        if sum > 0.0 || all.iter().any(|(_, is_busy)| *is_busy) {
            assert_eq!(*is_active, Some(true));
        }
    }
}
