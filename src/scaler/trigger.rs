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
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            places: vec!["intentd:9100".parse().unwrap()],
            activation: 1e-6,
            prometheus: Some("http://prometheus:9090".parse().unwrap()),
            query: Some("up".to_owned()),
            threshold: 5.0,
            bootstrap: None,
            topic: None,
            group: None,
            lag: 0.0,
            kafka_settings: Vec::new(),
            is_fixed: false,
        }
    }

    fn read(metadata: &[(&str, &str)], defaults: &Defaults) -> Result<Trigger, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let metadata = metadata.iter().map(owned).collect();
        Trigger::read(&metadata, defaults).map_err(|mistakes| mistakes.join("; "))
    }

    fn query_of(trigger: &Trigger) -> Option<(&str, f64)> {
        trigger.watch.wakes.iter().find_map(|wake| match wake {
            Wake::Prometheus {
                query, threshold, ..
            } => Some((query.as_str(), *threshold)),
            Wake::Kafka { .. } => None,
        })
    }

    #[test]
    fn the_flags_count_where_metadata_says_nothing() {
        let trigger = read(
            &[("scalerAddress", "scaler:9101"), ("wakeQuery", " ")],
            &defaults(),
        );
        let trigger = trigger.unwrap();
        assert_eq!(trigger.target, 1.0);
        assert_eq!(trigger.watch.places, defaults().places);
        assert_eq!(query_of(&trigger), Some(("up", 5.0)));
        let changed = [
            ("target", "0.8"),
            ("wakeQueryFromEnv", "lag"),
            ("activationDemand", "0.1"),
        ];
        let trigger = read(&changed, &defaults()).unwrap();
        assert_eq!((trigger.target, trigger.watch.activation), (0.8, 0.1));
        assert_eq!(query_of(&trigger), Some(("lag", 5.0)));
    }

    #[test]
    fn another_workload_is_not_woken_by_the_query_of_the_flags() {
        let other = [("replicas", "b:1, a:1,b:1")];
        let trigger = read(&other, &defaults()).unwrap();
        let shown: Vec<String> = trigger.watch.places.iter().map(Place::to_string).collect();
        assert_eq!(shown, ["a:1", "b:1"]);
        assert_eq!(query_of(&trigger), None);
        let turned = read(&[("replicas", "a:1,b:1"), ("target", "2")], &defaults()).unwrap();
        assert_eq!(
            turned.watch.key(),
            trigger.watch.key(),
            "one watch for both"
        );
        let own = [("replicas", "a:1"), ("wakeQuery", "lag")];
        let trigger = read(&own, &defaults()).unwrap();
        assert_eq!(query_of(&trigger), Some(("lag", 0.0)));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let metadata = [
            ("replicas", "a,b:0"),
            ("target", "-1"),
            ("activationDemand", "some"),
            ("wakePrometheus", "prometheus"),
            ("wakeTreshold", "1"),
        ];
        let mistakes = read(&metadata, &defaults()).unwrap_err();
        for part in [
            "\"a\"",
            "\"b:0\"",
            "target",
            "activationDemand",
            "wakePrometheus",
            "Treshold",
        ] {
            assert!(mistakes.contains(part), "{part} is missing from {mistakes}");
        }
        let none = Defaults {
            places: Vec::new(),
            prometheus: None,
            query: None,
            ..defaults()
        };
        let mistakes = read(&[("wakeQuery", "up")], &none).unwrap_err();
        assert!(mistakes.contains("--replicas"), "{mistakes}");
        assert!(mistakes.contains("wakePrometheus"), "{mistakes}");
    }

    #[test]
    fn a_fixed_scaler_asks_nobody_that_a_trigger_names() {
        let fixed = Defaults {
            is_fixed: true,
            ..defaults()
        };
        assert!(read(&[("target", "2")], &fixed).is_ok());
        let mistakes = read(&[("replicas", "a:1"), ("wakeQuery", "up")], &fixed).unwrap_err();
        assert_eq!(mistakes.matches("--fixed").count(), 2, "{mistakes}");
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn secrets_go_to_the_brokers_of_the_flag_alone() {
        let secret = ("sasl.password".to_owned(), "secret".to_owned());
        let defaults = Defaults {
            bootstrap: Some("kafka:9092".to_owned()),
            kafka_settings: vec![secret],
            ..defaults()
        };
        let settings = |metadata: &[(&str, &str)]| {
            let topic = [("replicas", "a:1"), ("wakeTopic", "t"), ("wakeGroup", "g")];
            let trigger = read(&[&topic[..], metadata].concat(), &defaults).unwrap();
            match &trigger.watch.wakes[..] {
                [Wake::Kafka { group, .. }] => group.settings.len(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(settings(&[]), 1);
        assert_eq!(settings(&[("wakeKafka", "kafka:9092")]), 1);
        assert_eq!(settings(&[("wakeKafka", "elsewhere:9092")]), 0);
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn without_kafka_it_is_said_how_to_build_it() {
        let mistakes = read(&[("wakeTopic", "t")], &defaults()).unwrap_err();
        assert!(mistakes.contains("--features kafka"), "{mistakes}");
    }
}
