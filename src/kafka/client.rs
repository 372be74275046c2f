//! Translates our settings to those of librdkafka.

use std::path::PathBuf;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::settings::{Connection, Credentials, GroupProtocol, SourceSettings};
use intentd_base::input;

/// A client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The password cannot be read.
    #[error("--kafka-password-file: {path}: {error}", path = .path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// A file with certificates cannot be read.
    #[error("{flag}: {path}: {error}", path = .path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// librdkafka refuses the settings, or a file that they name.
    #[error("the settings for Kafka cannot be used: {0}")]
    Refused(String),
    /// A thread cannot be started.
    #[error("cannot start a thread for Kafka: {0}")]
    Thread(std::io::Error),
}

impl From<KafkaError> for ClientError {
    fn from(error: KafkaError) -> Self {
        Self::Refused(match error {
            // The original error includes the value, which may be a password.
            KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
            error => error.to_string(),
        })
    }
}

/// The settings that consumers and producers share.
fn shared_settings(connection: &Connection) -> Result<ClientConfig, ClientError> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &connection.brokers)
        .set("client.id", "intentd")
        .set("security.protocol", connection.security.protocol())
        // Reconnect soon to a broker that was away.
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
    // librdkafka's own error does not name the file.
    let mut file = |setting: &str, flag: &'static str, path: &PathBuf| {
        let opened = input::open(path);
        opened.map_err(|error| ClientError::File {
            flag,
            path: path.clone(),
            error,
        })?;
        settings.set(setting, path.to_string_lossy());
        Ok::<(), ClientError>(())
    };
    if let Some(ca) = &connection.ca {
        file("ssl.ca.location", "--kafka-ca", ca)?;
    }
    if let Some((certificate, key)) = &connection.certificate {
        file("ssl.certificate.location", "--kafka-cert", certificate)?;
        file("ssl.key.location", "--kafka-key", key)?;
    }
    Ok(settings)
}

fn with_properties(mut settings: ClientConfig, connection: &Connection) -> ClientConfig {
    for (key, value) in &connection.properties {
        settings.set(key, value);
    }
    settings
}

/// A consumer that commits only on demand.
pub(super) fn consumer_settings(source: &SourceSettings) -> Result<ClientConfig, ClientError> {
    let mut settings = shared_settings(&source.connection)?;
    settings
        .set("group.id", &source.group)
        // Also with `Start::Latest`, which is for a group that has read nothing (`start.rs`). An offset that retention
        // has passed goes to the earliest record that is left.
        .set("auto.offset.reset", "earliest")
        // A pause discards what was fetched ahead, and that takes memory.
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "16384")
        // All partitions share one queue. By default, each backs off for a second when that is full.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "50")
        // New partitions, and a topic that is created anew, are seen after half a minute instead of five.
        .set("topic.metadata.refresh.interval.ms", "30000");
    match source.protocol {
        // Members continue to read the partitions that they keep in a rebalance.
        GroupProtocol::Classic => settings
            .set("partition.assignment.strategy", "cooperative-sticky")
            // Nobody reads the partitions of a member that was killed until its session ends. librdkafka's default is 45 s.
            .set("session.timeout.ms", "10000"),
        // The broker decides on the session's timeout.
        GroupProtocol::Consumer => settings.set("group.protocol", "consumer"),
    };
    let mut settings = with_properties(settings, &source.connection);
    settings
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Shows that a partition can be read even where it is empty.
        .set("enable.partition.eof", "true");
    Ok(settings)
}

/// An idempotent producer: all in-sync replicas get each record once, in order.
///
/// # Errors
/// When the password cannot be read.
pub fn producer_settings(connection: &Connection) -> Result<ClientConfig, ClientError> {
    let mut settings = shared_settings(connection)?;
    settings
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        // The brokers decide which size they accept.
        .set("message.max.bytes", "1000000000")
        .set("compression.type", "lz4");
    // A producer would warn about settings of consumer groups at each start.
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
