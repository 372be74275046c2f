//! What a trigger asks for: the flags of the scaler, with what its metadata says instead.
//!
//! Metadata is written by whoever may create a ScaledObject. It can name any address to ask, so it gets
//! no secret of the scaler's: settings of Kafka go to the brokers of the flag alone.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use super::place::Place;
use super::wake::{KafkaGroup, PrometheusUrl, Wake};
use crate::error::shown;

/// Places that one trigger may name.
const PLACES_MAX: usize = 64;

/// Brokers that one trigger may name.
const BROKERS_MAX: usize = 16;

/// Mistakes that are reported at once.
const MISTAKES_MAX: usize = 10;

/// What the flags say.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Replicas of triggers that name none.
    pub places: Vec<Place>,
    /// Demand, in replicas, above which a workload is active.
    pub activation: f64,
    /// Prometheus for queries.
    pub prometheus: Option<PrometheusUrl>,
    /// The query for triggers that name no replicas of their own.
    pub query: Option<String>,
    /// Its threshold.
    pub threshold: f64,
    /// Kafka's brokers.
    pub bootstrap: Option<String>,
    /// Topic and group for triggers that name no replicas of their own.
    pub topic: Option<String>,
    /// See `topic`.
    pub group: Option<String>,
    /// Lag above which they are a sign of work, in records.
    pub lag: f64,
    /// Settings of librdkafka for `bootstrap`.
    pub kafka_settings: Vec<(String, String)>,
    /// Whether triggers may only choose a target and an activation.
    pub is_fixed: bool,
}

/// What is watched for a trigger. Triggers that ask for the same share it, whatever follows for each from
/// what is seen: else metadata could make as many as there may be, even of a scaler that is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) places: Vec<Place>,
    pub(super) wakes: Vec<Wake>,
}

impl Watch {
    /// The same for the same workload, and for no other.
    pub(super) fn key(&self) -> String {
        format!("{self:?}")
    }
}

/// A trigger.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trigger {
    pub(super) watch: Watch,
    /// Demand for each replica that the autoscaler aims at.
    pub(super) target: f64,
    /// From what on the workload is active.
    pub(super) limits: Limits,
}

/// What a trigger takes for work.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits {
    /// Demand, in replicas, above which the workload is active.
    pub(super) activation: f64,
    /// Values above which the signs of work are such, in the order of the watch's.
    pub(super) signs: Vec<f64>,
}

/// Keys of metadata that name somebody to ask.
const SOURCES: [&str; 8] = [
    "replicas",
    "wakePrometheus",
    "wakeQuery",
    "wakeThreshold",
    "wakeKafka",
    "wakeTopic",
    "wakeGroup",
    "wakeLag",
];

/// Whether a key is one of ours.
fn is_known(key: &str) -> bool {
    SOURCES.contains(&key) || matches!(key, "target" | "activationDemand")
}

/// Metadata under reading.
struct Reading<'a> {
    values: HashMap<&'a str, &'a str>,
    mistakes: Vec<String>,
}

impl Trigger {
    /// Reads the metadata of a trigger. KEDA passes on all of it, its own keys included, so keys that
    /// are not known are ignored, unless they look like a misspelt one of ours.
    ///
    /// # Errors
    /// All mistakes at once.
    pub(super) fn read(
        metadata: &HashMap<String, String>,
        defaults: &Defaults,
    ) -> Result<Self, Vec<String>> {
        let mut reading = Reading::new(metadata);
        reading.unknown_keys();
        if defaults.is_fixed {
            reading.no_sources();
        }
        let own = reading.text("replicas");
        let places = match own {
            Some(list) => reading.places(list),
            None => defaults.places.clone(),
        };
        if own.is_none() && places.is_empty() {
            let what =
                "replicas: expected host:port, since the scaler has no --replicas of its own";
            reading.wrong(what.to_owned());
        }
        // What wakes the workload of the flags says nothing about another one.
        let is_own = own.is_some();
        let wakes = [
            reading.prometheus(defaults, is_own),
            reading.kafka(defaults, is_own),
        ];
        let target = reading.number("target").unwrap_or(1.0);
        if target <= 0.0 {
            let what = format!("target: expected a number above 0, found {target}");
            reading.wrong(what);
        }
        let activation = reading.number("activationDemand");
        let activation = activation.unwrap_or(defaults.activation);
        if activation < 0.0 {
            let what = format!("activationDemand: expected a number from 0, found {activation}");
            reading.wrong(what);
        }
        if !reading.mistakes.is_empty() {
            return Err(reading.mistakes);
        }
        let (wakes, signs) = wakes.into_iter().flatten().unzip();
        Ok(Self {
            watch: Watch { places, wakes },
            target,
            limits: Limits { activation, signs },
        })
    }
}

impl<'a> Reading<'a> {
    fn new(metadata: &'a HashMap<String, String>) -> Self {
        let mut reading = Self {
            values: HashMap::new(),
            mistakes: Vec::new(),
        };
        let mut twice = BTreeSet::new();
        let trimmed = metadata.iter().map(|(key, value)| (key, value.trim()));
        // A template with nothing to put in leaves an empty text.
        for (key, value) in trimmed.filter(|(_, value)| !value.is_empty()) {
            // KEDA resolves these and leaves their names.
            let bare = key.strip_suffix("FromEnv");
            let place = reading.values.entry(bare.unwrap_or(key));
            if let Entry::Occupied(_) = place {
                twice.insert(bare.unwrap_or(key));
            }
            // A map has no order, and what is read from it must not depend on any.
            let held = place.or_insert(value);
            if bare.is_none() {
                *held = value;
            }
        }
        for key in twice.into_iter().filter(|key| is_known(key)) {
            let what = format!("{key}, {key}FromEnv: expected one of them, found both");
            reading.wrong(what);
        }
        reading
    }

    fn wrong(&mut self, what: String) {
        match self.mistakes.len() {
            0..MISTAKES_MAX => self.mistakes.push(what),
            MISTAKES_MAX => self.mistakes.push("and more".to_owned()),
            _ => {}
        }
    }

    fn unknown_keys(&mut self) {
        let is_ours = |key: &&&str| key.starts_with("wake") || key.starts_with("activation");
        let keys = self.values.keys();
        let unknown = keys.filter(is_ours).filter(|key| !is_known(key)).copied();
        let mut unknown: Vec<&str> = unknown.collect();
        unknown.sort_unstable();
        for key in unknown.into_iter().take(MISTAKES_MAX + 1) {
            let (key, known) = (shown(key), SOURCES.join(", "));
            let what = format!("{key}: no such key; there are {known}, target, activationDemand");
            self.wrong(what);
        }
    }

    fn no_sources(&mut self) {
        for key in SOURCES {
            if self.values.contains_key(key) {
                let what = format!("{key}: this scaler takes that from its flags alone (--fixed)");
                self.wrong(what);
            }
        }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.values.get(key).copied()
    }

    fn owned(&self, key: &str) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    fn parsed<T: FromStr<Err = String>>(&mut self, key: &str) -> Option<T> {
        let parsed: Result<T, String> = self.text(key)?.parse();
        parsed
            .map_err(|why| self.wrong(format!("{key}: {why}")))
            .ok()
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        let text = self.text(key)?;
        let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
        if number.is_none() {
            let found = shown(text);
            self.wrong(format!("{key}: expected a number, found {found}"));
        }
        number
    }

    fn places(&mut self, list: &str) -> Vec<Place> {
        // In order: the same workload in whatever order it is named.
        let mut places = BTreeSet::new();
        let mut named = 0;
        for text in list.split(',').filter(|text| !text.trim().is_empty()) {
            named += 1;
            if named > PLACES_MAX {
                let what = format!("replicas: expected at most {PLACES_MAX}; use a name");
                self.wrong(what);
                break;
            }
            match text.parse::<Place>() {
                Ok(place) => drop(places.insert(place)),
                Err(why) => self.wrong(format!("replicas: {why}")),
            }
        }
        if named == 0 {
            let found = shown(list);
            self.wrong(format!("replicas: expected host:port, found {found}"));
        }
        places.into_iter().collect()
    }

    fn prometheus(&mut self, defaults: &Defaults, is_own: bool) -> Option<(Wake, f64)> {
        let named = self.parsed("wakePrometheus");
        let is_named = self.text("wakePrometheus").is_some();
        let default = defaults.query.clone().filter(|_| !is_own);
        let query = self.owned("wakeQuery").or(default);
        let inherited = if is_own { 0.0 } else { defaults.threshold };
        let threshold = self.number("wakeThreshold");
        let server = named.or_else(|| defaults.prometheus.clone());
        let mut need = |what: &str| self.wrong(what.to_owned());
        match (server, query) {
            (Some(server), Some(query)) => {
                let wake = Wake::Prometheus { server, query };
                Some((wake, threshold.unwrap_or(inherited)))
            }
            (None, Some(_)) if !is_named => {
                need("wakeQuery: expected wakePrometheus beside it");
                None
            }
            (_, None) if is_named || threshold.is_some() => {
                need("wakePrometheus, wakeThreshold: expected wakeQuery beside it");
                None
            }
            _ => None,
        }
    }

    fn kafka(&mut self, defaults: &Defaults, is_own: bool) -> Option<(Wake, f64)> {
        let named = self.owned("wakeKafka");
        let inherit = |value: &Option<String>| value.clone().filter(|_| !is_own);
        let topic = self.owned("wakeTopic").or(inherit(&defaults.topic));
        let group = self.owned("wakeGroup").or(inherit(&defaults.group));
        let inherited = if is_own { 0.0 } else { defaults.lag };
        let lag = self.number("wakeLag");
        let is_asked = named.is_some() || topic.is_some() || group.is_some() || lag.is_some();
        if !is_asked {
            return None;
        }
        if !cfg!(feature = "kafka") {
            self.wrong(NO_KAFKA.to_owned());
            return None;
        }
        let is_trusted = named.is_none() || named == defaults.bootstrap;
        let bootstrap = named.or_else(|| defaults.bootstrap.clone());
        let (Some(bootstrap), Some(topic), Some(group)) = (bootstrap, topic, group) else {
            let what = "wakeKafka, wakeTopic, wakeGroup: expected all three";
            self.wrong(what.to_owned());
            return None;
        };
        if bootstrap.split(',').nth(BROKERS_MAX).is_some() {
            self.wrong(format!("wakeKafka: expected at most {BROKERS_MAX} brokers"));
            return None;
        }
        let settings = if is_trusted {
            defaults.kafka_settings.clone()
        } else {
            Vec::new()
        };
        let wake = Wake::Kafka(KafkaGroup {
            bootstrap,
            topic,
            group,
            settings,
        });
        Some((wake, lag.unwrap_or(inherited)))
    }
}

/// What is said where Kafka is asked for and is not built in.
pub(crate) const NO_KAFKA: &str = "Kafka: this program was built without it; build it with cargo build --release --features kafka";

#[cfg(test)]
mod tests;
