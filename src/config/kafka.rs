//! The flags of Kafka. How to reach it is the same for every command.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ConfigError;
use super::check::both;
use super::scaler::{Entry, entries, entry};
use crate::error::NO_KAFKA;
use crate::events::{
    Connection, Credentials, GroupProtocol, Mechanism, Security, SourceSettings, Start,
};

/// Settings of librdkafka that have flags of their own, or that decide whether records may be lost.
const OURS: [&str; 10] = [
    "acks",
    "bootstrap.servers",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.protocol",
    "metadata.broker.list",
    "request.required.acks",
];

/// How to reach Kafka, and which topics of it.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaArgs {
    /// Kafka's brokers to begin with: host:port, separated by commas. Needs a build with --features kafka, as
    /// do all of these.
    #[arg(long, env = "INTENTD_KAFKA_BROKERS", value_name = "BOOTSTRAP")]
    pub kafka_brokers: Option<String>,
    /// Topics, separated by commas.
    #[arg(
        long,
        env = "INTENTD_KAFKA_TOPIC",
        value_name = "TOPIC",
        value_delimiter = ','
    )]
    pub kafka_topic: Vec<String>,
    /// How connections to Kafka are secured.
    #[arg(
        long,
        env = "INTENTD_KAFKA_SECURITY",
        value_enum,
        default_value = "plaintext"
    )]
    pub kafka_security: Security,
    /// How the password for Kafka is proved.
    #[arg(
        long,
        env = "INTENTD_KAFKA_SASL_MECHANISM",
        value_enum,
        default_value = "plain"
    )]
    pub kafka_sasl_mechanism: Mechanism,
    /// Who logs in to Kafka.
    #[arg(long, env = "INTENTD_KAFKA_USERNAME", value_name = "NAME")]
    pub kafka_username: Option<String>,
    /// File with the password for Kafka.
    #[arg(long, env = "INTENTD_KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,
    /// PEM file with the authorities that sign Kafka's certificates [default: the system's].
    #[arg(long, env = "INTENTD_KAFKA_CA", value_name = "FILE")]
    pub kafka_ca: Option<PathBuf>,
    /// PEM file with a certificate to show to Kafka.
    #[arg(long, env = "INTENTD_KAFKA_CERT", value_name = "FILE")]
    pub kafka_cert: Option<PathBuf>,
    /// PEM file with its key.
    #[arg(long, env = "INTENTD_KAFKA_KEY", value_name = "FILE")]
    pub kafka_key: Option<PathBuf>,
    /// Setting of librdkafka; may come more than once, in the environment one a line.
    #[arg(
        long,
        env = "INTENTD_KAFKA_CONFIG",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        value_parser = entry,
        hide_env_values = true
    )]
    pub kafka_config: Vec<Entry<(String, String)>>,
}

/// As which member of which group topics are read.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaGroupArgs {
    /// Consumer group that reads the topics.
    #[arg(
        long,
        env = "INTENTD_KAFKA_GROUP",
        value_name = "GROUP",
        default_value = "intentd"
    )]
    pub kafka_group: String,
    /// How the group's members share the partitions: consumer is that of Kafka 4.0 and later (KIP-848).
    #[arg(
        long,
        env = "INTENTD_KAFKA_GROUP_PROTOCOL",
        value_enum,
        default_value = "classic"
    )]
    pub kafka_group_protocol: GroupProtocol,
    /// Where a group begins that has read nothing yet.
    #[arg(
        long,
        env = "INTENTD_KAFKA_START",
        value_enum,
        default_value = "earliest"
    )]
    pub kafka_start: Start,
    /// Topic that records are written to which cannot be classified or delivered, with the reason [default:
    /// they are counted and passed over].
    #[arg(long, env = "INTENTD_KAFKA_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub kafka_dead_letter_topic: Option<String>,
}

/// What becomes of the records that a server reads.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaSourceArgs {
    /// Topics that are read, and how to reach them.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// As which member of which group.
    #[command(flatten)]
    pub group: KafkaGroupArgs,
    /// Records that are worked on at once [default: what two batches hold].
    #[arg(long, env = "INTENTD_KAFKA_IN_FLIGHT", value_name = "N")]
    pub kafka_in_flight: Option<usize>,
    /// Topic that predictions are written to as CloudEvents, under the keys of their records.
    #[arg(long, env = "INTENTD_KAFKA_RESULTS_TOPIC", value_name = "TOPIC")]
    pub kafka_results_topic: Option<String>,
}

impl KafkaArgs {
    /// The brokers that the flags name, `None` when they name none.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn connection(self) -> Result<Option<Connection>, ConfigError> {
        let mut mistakes = self.mistakes();
        let certificate = (self.kafka_cert, self.kafka_key);
        let certificate = both("--kafka-cert, --kafka-key", certificate, &mut mistakes);
        let login = (self.kafka_username, self.kafka_password_file);
        let login = both(
            "--kafka-username, --kafka-password-file",
            login,
            &mut mistakes,
        );
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        Ok(self.kafka_brokers.map(|brokers| Connection {
            brokers,
            security: self.kafka_security,
            credentials: login.map(|(username, password_file)| Credentials {
                mechanism: self.kafka_sasl_mechanism,
                username,
                password_file,
            }),
            ca: self.kafka_ca,
            certificate,
            properties: entries(self.kafka_config),
        }))
    }

    /// The topics, without blanks around them.
    pub fn topics(&self) -> Vec<String> {
        let topics = self.kafka_topic.iter();
        topics.map(|name| name.trim().to_owned()).collect()
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut wrong = |what: &str| mistakes.push(what.to_owned());
        let security = self.kafka_security;
        let has_file = self.kafka_ca.is_some() || self.kafka_cert.is_some();
        let properties = || {
            self.kafka_config
                .iter()
                .filter_map(|entry| entry.0.as_ref())
        };
        let is_asked = self.kafka_brokers.is_some()
            || !self.kafka_topic.is_empty()
            || self.kafka_username.is_some()
            || has_file
            || security != Security::default()
            || self.kafka_sasl_mechanism != Mechanism::default()
            || properties().next().is_some();
        if is_asked && !cfg!(feature = "kafka") {
            wrong(&format!("--kafka-brokers: {NO_KAFKA}"));
            return mistakes;
        }
        if is_asked
            && self
                .kafka_brokers
                .as_ref()
                .is_none_or(|brokers| brokers.trim().is_empty())
        {
            wrong("--kafka-brokers: expected the address of a broker, such as kafka:9092");
        }
        let topics = self.topics();
        let names: BTreeSet<&String> = topics.iter().collect();
        let are_names = names.len() == topics.len() && topics.iter().all(|name| !name.is_empty());
        if self.kafka_brokers.is_some() && (names.is_empty() || !are_names) {
            wrong("--kafka-topic: expected names of topics, each once, beside --kafka-brokers");
        }
        if security.has_login() != self.kafka_username.is_some() && self.kafka_brokers.is_some() {
            wrong(if security.has_login() {
                "--kafka-username, --kafka-password-file: expected both for a login (--kafka-security)"
            } else {
                "--kafka-security: expected sasl-ssl or sasl-plaintext beside --kafka-username"
            });
        }
        if has_file && !security.has_tls() {
            wrong("--kafka-security: expected ssl or sasl-ssl beside --kafka-ca and --kafka-cert");
        }
        for (key, _) in properties().filter(|(key, _)| OURS.contains(&key.as_str())) {
            wrong(&format!("--kafka-config: {key} is set by intentd itself"));
        }
        mistakes
    }
}

impl KafkaGroupArgs {
    /// What is read of `topics`, how.
    pub(super) fn source(self, connection: Connection, topics: Vec<String>) -> SourceSettings {
        SourceSettings {
            connection,
            topics,
            group: self.kafka_group,
            protocol: self.kafka_group_protocol,
            start: self.kafka_start,
            in_flight_max: None,
            results_topic: None,
            dead_letter_topic: self.kafka_dead_letter_topic,
        }
    }

    /// What is wrong with the flags of a member that reads `topics`; none where nothing is read.
    pub(super) fn mistakes(&self, topics: &[String]) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.kafka_group.is_empty() {
            mistakes.push("--kafka-group: expected a name".to_owned());
        }
        let letters = &self.kafka_dead_letter_topic;
        mistakes.extend(other_topic(
            "--kafka-dead-letter-topic",
            letters.as_ref(),
            topics,
        ));
        let is_default = self.kafka_group_protocol == GroupProtocol::default()
            && self.kafka_start == Start::default();
        if topics.is_empty() && !is_default {
            let what =
                "--kafka-group-protocol, --kafka-start: expected --kafka-brokers beside them";
            mistakes.push(what.to_owned());
        }
        mistakes
    }
}

/// What is wrong with a topic that is written to.
fn other_topic(flag: &str, topic: Option<&String>, topics: &[String]) -> Option<String> {
    let topic = topic?;
    if topics.is_empty() {
        Some(format!("{flag}: expected --kafka-brokers beside it"))
    } else if topic.trim().is_empty() || topics.contains(topic) {
        Some(format!(
            "{flag}: expected another topic than those that are read"
        ))
    } else {
        None
    }
}

impl KafkaSourceArgs {
    /// What is read, `None` when nothing is; mistakes go to `mistakes`.
    pub(super) fn settings(self, mistakes: &mut Vec<String>) -> Option<SourceSettings> {
        let topics = self.kafka.topics();
        mistakes.extend(self.group.mistakes(&topics));
        let results = self.kafka_results_topic.as_ref();
        mistakes.extend(other_topic("--kafka-results-topic", results, &topics));
        match self.kafka_in_flight {
            Some(0) => {
                mistakes.push("--kafka-in-flight: expected at least 1, found 0".to_owned());
            }
            Some(_) if topics.is_empty() => {
                mistakes.push("--kafka-in-flight: expected --kafka-brokers beside it".to_owned());
            }
            _ => {}
        }
        let connection = self
            .kafka
            .connection()
            .unwrap_or_else(|ConfigError(more)| {
                mistakes.extend(more);
                None
            })?;
        Some(SourceSettings {
            in_flight_max: self.kafka_in_flight,
            results_topic: self.kafka_results_topic,
            ..self.group.source(connection, topics)
        })
    }
}

#[cfg(feature = "kafka")]
#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        source: KafkaSourceArgs,
    }

    fn settings(flags: &str) -> Result<Option<SourceSettings>, Vec<String>> {
        let line = std::iter::once("intentd").chain(flags.split_whitespace());
        let mut mistakes = Vec::new();
        let settings = Command::try_parse_from(line)
            .unwrap()
            .source
            .settings(&mut mistakes);
        if mistakes.is_empty() {
            Ok(settings)
        } else {
            Err(mistakes)
        }
    }

    #[test]
    fn without_brokers_nothing_is_read() {
        assert_eq!(settings(""), Ok(None));
        let found = settings("--kafka-brokers a:1,b:2 --kafka-topic x,y")
            .unwrap()
            .unwrap();
        assert_eq!((found.topics.len(), found.group.as_str()), (2, "intentd"));
    }

    #[test]
    fn what_makes_no_sense_together_is_said() {
        for (flags, flag) in [
            ("--kafka-topic x", "--kafka-brokers"),
            ("--kafka-brokers a:1", "--kafka-topic"),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-username u",
                "--kafka-password-file",
            ),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-security sasl-ssl",
                "--kafka-username",
            ),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-ca f",
                "--kafka-security",
            ),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-results-topic x",
                "--kafka-results-topic",
            ),
            ("--kafka-dead-letter-topic x", "--kafka-dead-letter-topic"),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-in-flight 0",
                "--kafka-in-flight",
            ),
            ("--kafka-brokers a:1 --kafka-topic x,x", "--kafka-topic"),
            ("--kafka-start latest", "--kafka-start"),
            ("--kafka-security ssl", "--kafka-brokers"),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-dead-letter-topic x",
                "--kafka-dead-letter-topic",
            ),
            (
                "--kafka-brokers a:1 --kafka-topic x --kafka-config enable.auto.commit=true",
                "--kafka-config",
            ),
        ] {
            let mistakes = settings(flags).unwrap_err().join("\n");
            assert!(
                mistakes.contains(flag),
                "{flag} is missing from {mistakes:?}"
            );
        }
    }
}
