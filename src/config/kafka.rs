//! The flags of Kafka. All commands share those of the connection.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::list::{ListItem, items, parse_property};
use super::mistakes::{ConfigError, both};
use crate::kafka::{
    Connection, Credentials, GroupProtocol, Mechanism, Security, SourceSettings, Start,
};
use intentd_base::NO_KAFKA;

/// Properties of librdkafka that have flags of their own or that decide whether records may be lost.
const RESERVED_PROPERTIES: [&str; 10] = [
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

/// The connection to Kafka, and the topics.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaArgs {
    /// Bootstrap brokers of Kafka: host:port, separated by commas. All Kafka flags need a build with --features
    /// kafka.
    #[arg(long, env = "INTENTD_KAFKA_BROKERS", value_name = "BOOTSTRAP")]
    pub kafka_brokers: Option<String>,
    /// Kafka topics, separated by commas.
    #[arg(
        long,
        env = "INTENTD_KAFKA_TOPIC",
        value_name = "TOPIC",
        value_delimiter = ','
    )]
    pub kafka_topic: Vec<String>,
    /// Encryption and authentication of connections to Kafka.
    #[arg(
        long,
        env = "INTENTD_KAFKA_SECURITY",
        value_enum,
        default_value = "plaintext"
    )]
    pub kafka_security: Security,
    /// SASL mechanism for the password for Kafka.
    #[arg(
        long,
        env = "INTENTD_KAFKA_SASL_MECHANISM",
        value_enum,
        default_value = "plain"
    )]
    pub kafka_sasl_mechanism: Mechanism,
    /// Username for Kafka.
    #[arg(long, env = "INTENTD_KAFKA_USERNAME", value_name = "NAME")]
    pub kafka_username: Option<String>,
    /// File with the password for Kafka.
    #[arg(long, env = "INTENTD_KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,
    /// PEM file with the authorities that sign the certificates of the brokers [default: the system's].
    #[arg(long, env = "INTENTD_KAFKA_CA", value_name = "FILE")]
    pub kafka_ca: Option<PathBuf>,
    /// PEM file with the client certificate for Kafka.
    #[arg(long, env = "INTENTD_KAFKA_CERT", value_name = "FILE")]
    pub kafka_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate.
    #[arg(long, env = "INTENTD_KAFKA_KEY", value_name = "FILE")]
    pub kafka_key: Option<PathBuf>,
    /// Property of librdkafka. May be repeated; in the environment, one on each line.
    #[arg(
        long,
        env = "INTENTD_KAFKA_CONFIG",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        value_parser = parse_property,
        hide_env_values = true
    )]
    pub kafka_config: Vec<ListItem<(String, String)>>,
}

/// The consumer group.
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
    /// Protocol by which the group shares partitions; consumer needs Kafka 4.0 or later (KIP-848).
    #[arg(
        long,
        env = "INTENTD_KAFKA_GROUP_PROTOCOL",
        value_enum,
        default_value = "classic"
    )]
    pub kafka_group_protocol: GroupProtocol,
    /// Where a new group starts to read.
    #[arg(
        long,
        env = "INTENTD_KAFKA_START",
        value_enum,
        default_value = "earliest"
    )]
    pub kafka_start: Start,
    /// Topic for records that cannot be classified or delivered, with the reason [default: such records are
    /// counted and skipped].
    #[arg(long, env = "INTENTD_KAFKA_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub kafka_dead_letter_topic: Option<String>,
}

/// The topics that a server reads, and where predictions go.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaSourceArgs {
    /// The connection and the topics.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The consumer group.
    #[command(flatten)]
    pub group: KafkaGroupArgs,
    /// Records in flight [default: as many as two batches hold].
    #[arg(long, env = "INTENTD_KAFKA_IN_FLIGHT", value_name = "N")]
    pub kafka_in_flight: Option<usize>,
    /// Topic for predictions. They are CloudEvents with the keys of their records.
    #[arg(long, env = "INTENTD_KAFKA_RESULTS_TOPIC", value_name = "TOPIC")]
    pub kafka_results_topic: Option<String>,
}

impl KafkaArgs {
    /// Checks the connection that the flags describe; `None` without `--kafka-brokers`.
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
            properties: items(self.kafka_config),
        }))
    }

    /// The topics, trimmed.
    pub fn topics(&self) -> Vec<String> {
        let topics = self.kafka_topic.iter();
        topics.map(|name| name.trim().to_owned()).collect()
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut wrong = |what: &str| mistakes.push(what.to_owned());
        let security = self.kafka_security;
        let has_file = self.kafka_ca.is_some() || self.kafka_cert.is_some();
        let properties = || self.kafka_config.iter().filter_map(ListItem::value);
        let is_configured = self.kafka_brokers.is_some()
            || !self.kafka_topic.is_empty()
            || self.kafka_username.is_some()
            || has_file
            || security != Security::default()
            || self.kafka_sasl_mechanism != Mechanism::default()
            || properties().next().is_some();
        if is_configured && !cfg!(feature = "kafka") {
            wrong(&format!("--kafka-brokers: {NO_KAFKA}"));
            return mistakes;
        }
        if is_configured
            && self
                .kafka_brokers
                .as_ref()
                .is_none_or(|brokers| brokers.trim().is_empty())
        {
            wrong("--kafka-brokers: expected the address of a broker, such as kafka:9092");
        }
        let topics = self.topics();
        let names: BTreeSet<&String> = topics.iter().collect();
        let are_distinct = names.len() == topics.len();
        let are_names = are_distinct && topics.iter().all(|name| !name.is_empty());
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
        for (key, _) in properties().filter(|(key, _)| RESERVED_PROPERTIES.contains(&key.as_str()))
        {
            wrong(&format!("--kafka-config: {key} is set by intentd itself"));
        }
        mistakes
    }
}

impl KafkaGroupArgs {
    /// Settings of a source that reads `topics`.
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

    /// Mistakes in the flags of a group that reads `topics`; without topics nothing is read.
    pub(super) fn mistakes(&self, topics: &[String]) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.kafka_group.is_empty() {
            mistakes.push("--kafka-group: expected a name".to_owned());
        }
        let dead_letters = self.kafka_dead_letter_topic.as_ref();
        mistakes.extend(output_topic_mistake(
            "--kafka-dead-letter-topic",
            dead_letters,
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

/// The mistake in a flag that names a topic for output, if there is one.
fn output_topic_mistake(flag: &str, topic: Option<&String>, topics: &[String]) -> Option<String> {
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
    /// Settings of the source; `None` when nothing is read or a flag is wrong.
    pub(super) fn settings(self, mistakes: &mut Vec<String>) -> Option<SourceSettings> {
        let topics = self.kafka.topics();
        mistakes.extend(self.group.mistakes(&topics));
        let results = self.kafka_results_topic.as_ref();
        mistakes.extend(output_topic_mistake(
            "--kafka-results-topic",
            results,
            &topics,
        ));
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
    fn flags_that_contradict_each_other_are_mistakes() {
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
