//! Triggers: the flags of the scaler, overridden by the metadata of a trigger.
//!
//! Anyone who may create a ScaledObject writes metadata, which can name any address to poll. It therefore
//! gets none of the scaler's secrets: settings of Kafka are sent only to the brokers of the flag.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use super::consumer_group::ConsumerGroup;
use super::endpoint::Endpoint;
use super::prometheus::PrometheusUrl;
use super::wake::WakeSource;
use intentd_base::{NO_KAFKA, shown};

/// Most endpoints of one trigger.
const ENDPOINTS_MAX: usize = 64;

/// Most brokers of one trigger.
const BROKERS_MAX: usize = 16;

/// Most mistakes that are reported at once.
const MISTAKES_MAX: usize = 10;

/// The defaults for triggers: the flags of the scaler.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Endpoints of the replicas, for triggers that name none.
    pub endpoints: Vec<Endpoint>,
    /// Demand, in replicas, above which a workload is active.
    pub activation: f64,
    /// The Prometheus server for queries.
    pub prometheus: Option<PrometheusUrl>,
    /// The query, for triggers that name no replicas of their own.
    pub query: Option<String>,
    /// The threshold of that query.
    pub threshold: f64,
    /// The bootstrap brokers of Kafka.
    pub bootstrap: Option<String>,
    /// The topic, for triggers that name no replicas of their own.
    pub topic: Option<String>,
    /// The consumer group, for triggers that name no replicas of their own.
    pub group: Option<String>,
    /// Lag of that group above which the workload is active, in records.
    pub lag: f64,
    /// Settings of librdkafka for `bootstrap`.
    pub kafka_settings: Vec<(String, String)>,
    /// Whether triggers may set only the target and the activation.
    pub is_fixed: bool,
}

/// What is watched for a trigger. Triggers that watch the same share a workload, even if their thresholds
/// differ. Otherwise metadata could exhaust the number of workloads, even of a scaler with fixed sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WatchSpec {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) wake_sources: Vec<WakeSource>,
}

impl WatchSpec {
    /// A key that is equal for equal specs only.
    pub(super) fn key(&self) -> String {
        format!("{self:?}")
    }
}

/// A trigger of KEDA.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trigger {
    pub(super) watch: WatchSpec,
    /// Demand for each replica that the autoscaler aims at.
    pub(super) target: f64,
    pub(super) thresholds: ActivityThresholds,
}

/// The values above which a workload is active.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ActivityThresholds {
    /// Demand, in replicas.
    pub(super) demand: f64,
    /// Values of the wake signals, in the order of their sources.
    pub(super) wake: Vec<f64>,
}

/// A wake source with its threshold.
struct ThresholdSource {
    source: WakeSource,
    threshold: f64,
}

/// Keys of metadata that name sources to poll.
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

/// The metadata of a trigger while it is parsed, and the mistakes so far.
struct Metadata<'a> {
    values: HashMap<&'a str, &'a str>,
    mistakes: Vec<String>,
}

impl Trigger {
    /// Parses the metadata of a trigger. Unknown keys are ignored, since KEDA passes on its own keys, too.
    /// Keys that look like a misspelt key of the scaler are mistakes.
    ///
    /// # Errors
    /// All mistakes at once.
    pub(super) fn parse(
        metadata: &HashMap<String, String>,
        defaults: &Defaults,
    ) -> Result<Self, Vec<String>> {
        let mut metadata = Metadata::new(metadata);
        metadata.check_unknown_keys();
        if defaults.is_fixed {
            metadata.refuse_sources();
        }
        let own = metadata.text("replicas");
        let endpoints = match own {
            Some(list) => metadata.endpoints(list),
            None => defaults.endpoints.clone(),
        };
        if own.is_none() && endpoints.is_empty() {
            let what =
                "replicas: expected host:port, since the scaler has no --replicas of its own";
            metadata.wrong(what.to_owned());
        }
        // The wake sources of the flags belong to the workload of the flags.
        let is_own = own.is_some();
        let sources = [
            metadata.prometheus(defaults, is_own),
            metadata.kafka(defaults, is_own),
        ];
        let target = metadata.number("target").unwrap_or(1.0);
        if target <= 0.0 {
            let what = format!("target: expected a number above 0, found {target}");
            metadata.wrong(what);
        }
        let demand = metadata.number("activationDemand");
        let demand = demand.unwrap_or(defaults.activation);
        if demand < 0.0 {
            let what = format!("activationDemand: expected a number from 0, found {demand}");
            metadata.wrong(what);
        }
        if !metadata.mistakes.is_empty() {
            return Err(metadata.mistakes);
        }
        let sources = sources.into_iter().flatten();
        let (wake_sources, wake) = sources.map(|found| (found.source, found.threshold)).unzip();
        Ok(Self {
            watch: WatchSpec {
                endpoints,
                wake_sources,
            },
            target,
            thresholds: ActivityThresholds { demand, wake },
        })
    }
}

impl<'a> Metadata<'a> {
    fn new(raw: &'a HashMap<String, String>) -> Self {
        let mut metadata = Self {
            values: HashMap::new(),
            mistakes: Vec::new(),
        };
        let mut twice = BTreeSet::new();
        let trimmed = raw.iter().map(|(key, value)| (key, value.trim()));
        // An empty value counts as absent: templates without a value leave one.
        for (key, value) in trimmed.filter(|(_, value)| !value.is_empty()) {
            // KEDA resolves these and keeps the names of their keys.
            let bare = key.strip_suffix("FromEnv");
            let entry = metadata.values.entry(bare.unwrap_or(key));
            if let Entry::Occupied(_) = entry {
                twice.insert(bare.unwrap_or(key));
            }
            // The result must not depend on the order of the map.
            let held = entry.or_insert(value);
            if bare.is_none() {
                *held = value;
            }
        }
        for key in twice.into_iter().filter(|key| is_known(key)) {
            let what = format!("{key}, {key}FromEnv: expected one of them, found both");
            metadata.wrong(what);
        }
        metadata
    }

    fn wrong(&mut self, what: String) {
        match self.mistakes.len() {
            0..MISTAKES_MAX => self.mistakes.push(what),
            MISTAKES_MAX => self.mistakes.push("and more".to_owned()),
            _ => {}
        }
    }

    /// Reports unknown keys that look like keys of the scaler.
    fn check_unknown_keys(&mut self) {
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

    /// Reports all keys that name sources.
    fn refuse_sources(&mut self) {
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

    fn endpoints(&mut self, list: &str) -> Vec<Endpoint> {
        // Sorted, so that the order in the list does not make another workload.
        let mut endpoints = BTreeSet::new();
        let mut named = 0;
        for text in list.split(',').filter(|text| !text.trim().is_empty()) {
            named += 1;
            if named > ENDPOINTS_MAX {
                let what = format!("replicas: expected at most {ENDPOINTS_MAX}; use a name");
                self.wrong(what);
                break;
            }
            match text.parse::<Endpoint>() {
                Ok(endpoint) => drop(endpoints.insert(endpoint)),
                Err(why) => self.wrong(format!("replicas: {why}")),
            }
        }
        if named == 0 {
            let found = shown(list);
            self.wrong(format!("replicas: expected host:port, found {found}"));
        }
        endpoints.into_iter().collect()
    }

    fn prometheus(&mut self, defaults: &Defaults, is_own: bool) -> Option<ThresholdSource> {
        let named = self.parsed("wakePrometheus");
        let is_named = self.text("wakePrometheus").is_some();
        let default = defaults.query.clone().filter(|_| !is_own);
        let query = self.owned("wakeQuery").or(default);
        let inherited = if is_own { 0.0 } else { defaults.threshold };
        let threshold = self.number("wakeThreshold");
        let server = named.or_else(|| defaults.prometheus.clone());
        let mut need = |what: &str| self.wrong(what.to_owned());
        match (server, query) {
            (Some(server), Some(query)) => Some(ThresholdSource {
                source: WakeSource::Prometheus { server, query },
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

    fn kafka(&mut self, defaults: &Defaults, is_own: bool) -> Option<ThresholdSource> {
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
        let source = WakeSource::Kafka(ConsumerGroup {
            bootstrap,
            topic,
            group,
            settings,
        });
        Some(ThresholdSource {
            source,
            threshold: lag.unwrap_or(inherited),
        })
    }
}

#[cfg(test)]
mod tests;
