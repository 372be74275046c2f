//! What a trigger asks for: the flags of the scaler, with what its metadata says instead.
//!
//! Metadata is written by whoever may create a ScaledObject. It can name any address to ask, so it gets
//! no secret of the scaler's: settings of Kafka go to the brokers of the flag alone.

use std::collections::HashMap;
use std::str::FromStr;

use super::place::Place;
use super::wake::{KafkaGroup, PrometheusUrl, Wake};

/// Places that one trigger may name.
const PLACES_MAX: usize = 64;

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

/// What is watched for a trigger. Triggers that ask for the same share it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watch {
    pub(super) places: Vec<Place>,
    pub(super) activation: f64,
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
            reading.mistakes.push(what.to_owned());
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
            reading.mistakes.push(what);
        }
        let activation = reading.number("activationDemand");
        let activation = activation.unwrap_or(defaults.activation);
        if activation < 0.0 {
            let what = format!("activationDemand: expected a number from 0, found {activation}");
            reading.mistakes.push(what);
        }
        if !reading.mistakes.is_empty() {
            return Err(reading.mistakes);
        }
        let watch = Watch {
            places,
            activation,
            wakes: wakes.into_iter().flatten().collect(),
        };
        Ok(Self { watch, target })
    }
}

impl<'a> Reading<'a> {
    fn new(metadata: &'a HashMap<String, String>) -> Self {
        let values = metadata.iter().map(|(key, value)| {
            // KEDA resolves these and leaves their names.
            let key = key.strip_suffix("FromEnv").unwrap_or(key);
            (key, value.trim())
        });
        Self {
            // A template with nothing to put in leaves an empty text.
            values: values.filter(|(_, value)| !value.is_empty()).collect(),
            mistakes: Vec::new(),
        }
    }

    fn unknown_keys(&mut self) {
        let is_ours = |key: &&&str| key.starts_with("wake") || key.starts_with("activation");
        let known = |key: &&&str| SOURCES.contains(*key) || **key == "activationDemand";
        let keys = self.values.keys();
        let mut unknown: Vec<_> = keys.filter(is_ours).filter(|key| !known(key)).collect();
        unknown.sort_unstable();
        for key in unknown {
            let known = SOURCES.join(", ");
            let what = format!("{key:?}: no such key; there are {known}, target, activationDemand");
            self.mistakes.push(what);
        }
    }

    fn no_sources(&mut self) {
        for key in SOURCES {
            if self.values.contains_key(key) {
                let what = format!("{key}: this scaler takes that from its flags alone (--fixed)");
                self.mistakes.push(what);
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
        let parsed = self.text(key)?.parse();
        parsed
            .map_err(|why: String| self.mistakes.push(format!("{key}: {why}")))
            .ok()
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        let text = self.text(key)?;
        let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
        if number.is_none() {
            let what = format!("{key}: expected a number, found {text:?}");
            self.mistakes.push(what);
        }
        number
    }

    fn places(&mut self, list: &str) -> Vec<Place> {
        let mut places = Vec::new();
        for text in list.split(',').filter(|text| !text.trim().is_empty()) {
            match text.parse() {
                Ok(place) if !places.contains(&place) => places.push(place),
                Ok(_) => {}
                Err(why) => self.mistakes.push(format!("replicas: {why}")),
            }
        }
        if places.len() > PLACES_MAX {
            let count = places.len();
            let what =
                format!("replicas: expected at most {PLACES_MAX}, found {count}; use a name");
            self.mistakes.push(what);
        }
        // The same workload in whatever order it is named.
        places.sort_unstable();
        places
    }

    fn prometheus(&mut self, defaults: &Defaults, is_own: bool) -> Option<Wake> {
        let named = self.parsed("wakePrometheus");
        let is_named = self.text("wakePrometheus").is_some();
        let default = defaults.query.clone().filter(|_| !is_own);
        let query = self.owned("wakeQuery").or(default);
        let inherited = if is_own { 0.0 } else { defaults.threshold };
        let threshold = self.number("wakeThreshold");
        let server = named.or_else(|| defaults.prometheus.clone());
        let mut need = |what: &str| self.mistakes.push(what.to_owned());
        match (server, query) {
            (Some(server), Some(query)) => Some(Wake::Prometheus {
                server,
                query,
                threshold: threshold.unwrap_or(inherited),
            }),
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

    fn kafka(&mut self, defaults: &Defaults, is_own: bool) -> Option<Wake> {
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
            self.mistakes.push(NO_KAFKA.to_owned());
            return None;
        }
        let is_trusted = named.is_none() || named == defaults.bootstrap;
        let bootstrap = named.or_else(|| defaults.bootstrap.clone());
        let (Some(bootstrap), Some(topic), Some(group)) = (bootstrap, topic, group) else {
            let what = "wakeKafka, wakeTopic, wakeGroup: expected all three";
            self.mistakes.push(what.to_owned());
            return None;
        };
        let settings = if is_trusted {
            defaults.kafka_settings.clone()
        } else {
            Vec::new()
        };
        Some(Wake::Kafka {
            group: KafkaGroup {
                bootstrap,
                topic,
                group,
                settings,
            },
            threshold: lag.unwrap_or(inherited),
        })
    }
}

/// What is said where Kafka is asked for and is not built in.
pub(crate) const NO_KAFKA: &str = "Kafka: this program was built without it; build it with cargo build --release --features kafka";

#[cfg(test)]
mod tests;
