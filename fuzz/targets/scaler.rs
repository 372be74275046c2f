//! The inputs of the scaler: responses of replicas and of Prometheus, metadata of triggers, and the view that
//! follows from them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use intentd::scaler::{
    Defaults, DemandReport, Endpoint, Replay, ReplayRound, ReplayState, ReplicaCounts, Staleness,
    parse_prometheus, parse_trigger,
};

use super::check_length;

/// Largest demand that a replica may report.
const DEMAND_MAX: f64 = 1e6;

/// `r` and a replica's response to `/autoscaling`, or another letter and a response of Prometheus.
pub fn scaler_answer(data: &[u8]) {
    let [kind, body @ ..] = data else {
        return;
    };
    if *kind == b'r' {
        match DemandReport::parse(body) {
            Ok(DemandReport {
                demand, is_busy, ..
            }) => {
                assert!((0.0..=DEMAND_MAX).contains(&demand));
                let queue = u8::from(is_busy);
                let again = format!(r#"{{"demand_replicas": {demand:?}, "queue_depth": {queue}}}"#);
                let again = DemandReport::parse(again.as_bytes()).expect("a valid report");
                // The JSON library may round the last digit differently.
                assert!((again.demand - demand).abs() <= 1e-12 * demand);
                assert_eq!(again.is_busy, is_busy);
            }
            Err(why) => check_length(&why),
        }
        return;
    }
    match parse_prometheus(body) {
        Ok(value) => {
            assert!(!value.is_nan());
            let sample = format!(r#"[0, "{value}"]"#);
            for (kind, result) in [
                ("scalar", sample.clone()),
                ("vector", format!(r#"[{{"value": {sample}}}]"#)),
            ] {
                let data = format!(r#"{{"resultType": "{kind}", "result": {result}}}"#);
                let again = parse_prometheus(format!(r#"{{"data": {data}}}"#).as_bytes());
                assert_eq!(again, Ok(value));
            }
        }
        Err(why) => check_length(&why),
    }
}

/// Lines `key=value` are metadata. Bit 0 of the first byte selects a scaler with fixed sources, bit 1 one
/// whose flags name sources.
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
    let trigger = parse_trigger(&metadata, defaults);
    // The result must not depend on the order of the map.
    let again: HashMap<String, String> = metadata.clone().into_iter().collect();
    assert_eq!(trigger, parse_trigger(&again, defaults));
    match trigger {
        Ok(trigger) => {
            assert!(trigger.target.is_finite() && trigger.target > 0.0);
            assert!(trigger.activation.is_finite() && trigger.activation >= 0.0);
            assert!((1..=64).contains(&trigger.endpoints));
            let thresholds = &trigger.wake_thresholds;
            assert!(thresholds.len() <= 2);
            assert!(thresholds.iter().all(|threshold| threshold.is_finite()));
        }
        Err(mistakes) => {
            assert!((1..=11).contains(&mistakes.len()));
            mistakes.iter().for_each(|mistake| check_length(mistake));
        }
    }
    for (_, value) in pairs() {
        if let Ok(endpoint) = value.parse::<Endpoint>() {
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }
}

fn defaults(is_fixed: bool, has_sources: bool) -> Defaults {
    let endpoint = "replicas.ns.svc:9100".parse().expect("an endpoint");
    let some = |text: &str| has_sources.then(|| text.to_owned());
    Defaults {
        endpoints: if has_sources {
            vec![endpoint]
        } else {
            Vec::new()
        },
        activation: 0.0,
        prometheus: some("http://prometheus:9090").map(|url| url.parse().expect("a URL")),
        query: some("sum(up)"),
        threshold: 0.0,
        // A build without Kafka refuses metadata that names it, so the flags must not name it either.
        bootstrap: None,
        topic: None,
        group: None,
        lag: 0.0,
        kafka_settings: Vec::new(),
        is_fixed,
    }
}

const ENDPOINTS: usize = 2;

/// Most addresses of the workload: fewer than a case may name.
const REPLICAS_MAX: usize = 6;

/// Thresholds of the wake signals.
const WAKE_THRESHOLDS: [f64; 2] = [0.0, 5.0];

const STALENESS: Staleness = Staleness {
    keep: Duration::from_secs(10),
    stale_after: Duration::from_secs(30),
};

/// Rounds, as lines:
///
/// - `p`, an endpoint and digits: its addresses from now on; `p`, an endpoint and `!`: they are unknown.
/// - `a`, an address and a body: its response in this round; `r` and an address: it refuses connections.
/// - `s`, a wake signal and a body: its response; `f` and a wake signal: it cannot be read.
/// - `t` and a number: the end of the round, that many tenths of a second after the one before.
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

/// The rounds of a case, and what follows from them without the scaler.
struct Case<'a> {
    replay: Replay,
    now: Duration,
    endpoints: [Result<Vec<SocketAddr>, String>; ENDPOINTS],
    responses: BTreeMap<SocketAddr, Option<&'a [u8]>>,
    signals: Vec<(usize, Result<&'a [u8], String>)>,
    /// The last value of each wake signal.
    values: [Option<f64>; WAKE_THRESHOLDS.len()],
    /// When each address last answered.
    answered: BTreeMap<SocketAddr, Duration>,
    /// When all endpoints were last known.
    resolved: Option<Duration>,
    before: Option<ReplayState>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            replay: Replay::new(ENDPOINTS, REPLICAS_MAX, &WAKE_THRESHOLDS, STALENESS),
            now: Duration::ZERO,
            endpoints: [Ok(Vec::new()), Ok(Vec::new())],
            responses: BTreeMap::new(),
            signals: Vec::new(),
            values: Default::default(),
            answered: BTreeMap::new(),
            resolved: None,
            before: None,
        }
    }
}

impl<'a> Case<'a> {
    fn take(&mut self, kind: u8, index: usize, rest: &'a [u8]) {
        let why = || "nobody knows".to_owned();
        match kind {
            b'p' if rest == b"!" => self.endpoints[index % ENDPOINTS] = Err(why()),
            b'p' => {
                let addresses: BTreeSet<_> = rest.iter().copied().map(address).collect();
                self.endpoints[index % ENDPOINTS] = Ok(addresses.into_iter().collect());
            }
            b'a' => drop(self.responses.insert(address(index as u8), Some(rest))),
            b'r' => drop(self.responses.insert(address(index as u8), None)),
            b's' => {
                let signal = index % WAKE_THRESHOLDS.len();
                self.signals.push((signal, Ok(rest)));
                let value = parse_prometheus(rest).ok();
                self.values[signal] = value.or(self.values[signal]);
            }
            b'f' => {
                let signal = index % WAKE_THRESHOLDS.len();
                self.signals.push((signal, Err(why())));
            }
            _ => {}
        }
    }

    fn end_round(&mut self, after: Duration) {
        self.now += after;
        let responses = std::mem::take(&mut self.responses);
        let state = self.replay.round(ReplayRound {
            at: self.now,
            endpoints: self.endpoints.to_vec(),
            responses: responses.clone(),
            signals: std::mem::take(&mut self.signals),
        });
        self.check_bounds(&state);
        self.check_sum(&state, &responses);
        self.before = Some(state);
    }

    /// Every view is within bounds, and the sum does not fall while a replica is missing.
    fn check_bounds(&self, state: &ReplayState) {
        let ReplayState {
            demand,
            replicas,
            unknown,
            ..
        } = state;
        let ReplicaCounts {
            fresh,
            kept,
            silent,
        } = replicas;
        let most = DEMAND_MAX * 8.0;
        assert!(demand.is_none_or(|demand| (0.0..=most).contains(&demand)));
        assert!(demand.is_some() || !unknown.is_empty() || self.values.contains(&None));
        assert!(unknown.len() <= 5 * 1300);
        assert!(fresh + kept + silent <= 8);
        if let Some(ReplayState {
            demand: Some(before),
            ..
        }) = self.before
            && *kept > 0
            && self.now <= STALENESS.stale_after
        {
            assert!(
                demand.is_some_and(|demand| demand >= before),
                "the sum fell"
            );
        }
    }

    /// Inactivity and the demand of complete rounds follow from the reports, and from the last ones for a while.
    fn check_sum(&mut self, state: &ReplayState, responses: &BTreeMap<SocketAddr, Option<&[u8]>>) {
        let ReplayState {
            demand,
            is_active,
            replicas,
            ..
        } = state;
        let found = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.as_ref().map_or(&[][..], Vec::as_slice));
        let polled: BTreeSet<SocketAddr> = found.clone().flatten().copied().collect();
        let is_resolved = self.endpoints.iter().all(Result::is_ok)
            && found.map(<[_]>::len).sum::<usize>() <= REPLICAS_MAX;
        let reports = polled.iter().map(|address| match responses.get(address) {
            Some(Some(body)) => DemandReport::parse(body).ok(),
            _ => None,
        });
        let reports: Vec<Option<DemandReport>> = reports.collect();
        if is_resolved {
            self.resolved = Some(self.now);
            // An address that leaves and comes back is another replica.
            self.answered.retain(|address, _| polled.contains(address));
        }
        for (address, report) in polled.iter().zip(&reports) {
            if report.is_some() {
                self.answered.insert(*address, self.now);
            }
        }
        if *is_active == Some(false) {
            let within = |at: Option<&Duration>, time| at.is_some_and(|at| self.now - *at <= time);
            let is_known = within(self.resolved.as_ref(), STALENESS.stale_after);
            assert!(is_known, "an address may be missing");
            // Two addresses of one pod count once, whichever of their reports is used.
            for address in &polled {
                let is_refused = matches!(responses.get(address), Some(None));
                let counts = within(self.answered.get(address), STALENESS.keep);
                assert!(counts || is_refused, "{address} may be busy");
            }
            for (value, limit) in self.values.iter().zip(WAKE_THRESHOLDS) {
                assert!(
                    value.is_some_and(|value| value <= limit),
                    "there may be work"
                );
            }
        }
        let has_pods = responses
            .values()
            .flatten()
            .any(|body| body.windows(3).any(|w| w == b"pod"));
        let all: Option<Vec<DemandReport>> = reports.into_iter().collect();
        let Some(all) = all.filter(|_| is_resolved && !has_pods) else {
            return;
        };
        let sum: f64 = all.iter().map(|report| report.demand).sum();
        assert!(
            demand.is_some_and(|demand| (demand - sum).abs() <= 1e-9 * sum),
            "{demand:?} {sum}"
        );
        let expected = ReplicaCounts {
            fresh: all.len(),
            ..ReplicaCounts::default()
        };
        assert_eq!(*replicas, expected);
        if sum > 0.0 || all.iter().any(|report| report.is_busy) {
            assert_eq!(*is_active, Some(true));
        }
    }
}
