//! Settings of librdkafka from ours.

use std::path::PathBuf;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::settings::{Connection, Credentials, GroupProtocol, SourceSettings, Start};
use crate::input;

/// Why a client cannot be made: its settings make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The password cannot be read.
    #[error("--kafka-password-file: {path}: {error}", path = .path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// librdkafka refuses the settings, or a file they name.
    #[error("the settings for Kafka cannot be used: {0}")]
    Refused(String),
    /// The operating system gives no thread.
    #[error("cannot start a thread for Kafka: {0}")]
    Thread(std::io::Error),
}

impl From<KafkaError> for ClientError {
    fn from(error: KafkaError) -> Self {
        Self::Refused(match error {
            // As it comes it has the value, which may be a password.
            KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
            error => error.to_string(),
        })
    }
}

/// What consumers and producers have in common.
fn common(connection: &Connection) -> Result<ClientConfig, ClientError> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &connection.brokers)
        .set("client.id", "intentd")
        .set("security.protocol", connection.security.protocol())
        // Brokers that go away and come back are met again soon.
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true");
    if let Some(Credentials {
        mechanism,
        username,
        password_file,
    }) = &connection.credentials
    {
        let password = input::read_text(password_file, input::SMALL).map_err(|error| {
            let path = password_file.clone();
            ClientError::Password { path, error }
        })?;
        settings
            .set("sasl.mechanism", mechanism.name())
            .set("sasl.username", username)
            .set("sasl.password", password.trim_end_matches(['\r', '\n']));
    }
    let file = |path: &PathBuf| path.to_string_lossy().into_owned();
    if let Some(ca) = &connection.ca {
        settings.set("ssl.ca.location", file(ca));
    }
    if let Some((certificate, key)) = &connection.certificate {
        settings.set("ssl.certificate.location", file(certificate));
        settings.set("ssl.key.location", file(key));
    }
    Ok(settings)
}

fn with_properties(mut settings: ClientConfig, connection: &Connection) -> ClientConfig {
    for (key, value) in &connection.properties {
        settings.set(key, value);
    }
    settings
}

/// A consumer that commits what it is told to, when it is told to.
pub(super) fn consumer_settings(source: &SourceSettings) -> Result<ClientConfig, ClientError> {
    let mut settings = common(&source.connection)?;
    settings
        .set("group.id", &source.group)
        .set(
            "auto.offset.reset",
            match source.start {
                Start::Earliest => "earliest",
                Start::Latest => "latest",
            },
        )
        // What is fetched ahead is lost when reading pauses, and counts as memory.
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "16384")
        // All partitions share one queue; when it is full enough, each would wait for a second.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "50");
    match source.protocol {
        // Members keep reading the partitions that they keep.
        GroupProtocol::Classic => {
            settings.set("partition.assignment.strategy", "cooperative-sticky")
        }
        GroupProtocol::Consumer => settings.set("group.protocol", "consumer"),
    };
    let mut settings = with_properties(settings, &source.connection);
    settings
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    Ok(settings)
}

/// A producer whose records all in-sync replicas have, each once and in order.
///
/// # Errors
/// When the password cannot be read.
pub fn producer_settings(connection: &Connection) -> Result<ClientConfig, ClientError> {
    let mut settings = common(connection)?;
    settings
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        // What the brokers take is for them to say.
        .set("message.max.bytes", "1000000000")
        .set("compression.type", "lz4");
    // Settings of groups are none of a producer's, which would say so at each start.
    let is_of_groups = |key: &str| {
        let prefixes = [
            "group.",
            "session.",
            "heartbeat.",
            "max.poll.",
            "fetch.",
            "queued.",
            "auto.",
        ];
        prefixes.iter().any(|prefix| key.starts_with(prefix))
    };
    let mut connection = connection.clone();
    connection.properties.retain(|(key, _)| !is_of_groups(key));
    Ok(with_properties(settings, &connection))
}
