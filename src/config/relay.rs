//! The flags of `intentd relay` and their check.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderValue, Uri};
use clap::builder::BoolishValueParser;

use super::host::parse_host;
use super::kafka::{KafkaArgs, KafkaGroupArgs};
use super::logging::{self, LogFormat};
use super::mistakes::ConfigError;
use super::ports::AdminPort;
use super::time;
use crate::kafka::{RelaySettings, RetryPolicy};
use intentd_base::NO_KAFKA;

/// The flags of `intentd relay`.
#[derive(Debug, Clone, clap::Args)]
pub struct RelayArgs {
    /// URL that records are POSTed to as CloudEvents in binary mode, such as http://intents/predict.
    #[arg(long, env = "INTENTD_RELAY_SINK", value_name = "URL", value_parser = parse_sink)]
    pub sink: Uri,
    /// Host header of the requests, if it differs from the host of --sink.
    #[arg(long, env = "INTENTD_RELAY_DOMAIN", value_name = "NAME")]
    pub domain: Option<HeaderValue>,
    /// Time for the sink to answer.
    #[arg(long, env = "INTENTD_RELAY_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = time::parse)]
    pub request_timeout: Duration,
    /// Retries before a record becomes a dead letter. Answers that reject the record itself (400, 413, 414,
    /// 415, 422, 431) are not retried. Without --kafka-dead-letter-topic, retries go on until the record is
    /// accepted.
    #[arg(
        long,
        env = "INTENTD_RELAY_RETRY",
        value_name = "N",
        default_value = "10"
    )]
    pub retry: u32,
    /// Unit of the pauses before retries.
    #[arg(long, env = "INTENTD_RELAY_RETRY_DELAY", value_name = "TIME", default_value = "200ms", value_parser = time::parse_or_off)]
    pub retry_delay: Duration,
    /// Growth of these pauses, up to five minutes: 2, 4, 8 times the unit (exponential), or 1, 2, 3 times
    /// (linear).
    #[arg(
        long,
        env = "INTENTD_RELAY_RETRY_POLICY",
        value_enum,
        default_value = "exponential"
    )]
    pub retry_policy: RetryPolicy,
    /// Deliver the records of a partition one after the other, in their order, as KafkaSource does with "ordered"
    /// delivery.
    #[arg(long, env = "INTENTD_RELAY_ORDERED", value_parser = BoolishValueParser::new())]
    pub ordered: bool,
    /// Records in flight. They may be answered in any order, unless --ordered is set.
    #[arg(
        long,
        env = "INTENTD_RELAY_IN_FLIGHT",
        value_name = "N",
        default_value = "100"
    )]
    pub in_flight: usize,
    /// The connection and the topics.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The consumer group.
    #[command(flatten)]
    pub group: KafkaGroupArgs,
    /// IP address or name to listen on; :: is all addresses, those of IPv4 too.
    #[arg(
        long,
        env = "INTENTD_RELAY_HOST",
        value_name = "HOST",
        default_value = "::",
        value_parser = parse_host
    )]
    pub host: IpAddr,
    /// Port for operators (/metrics, /healthz, /readyz): a number, 0 for a free one, or "off".
    #[arg(
        long,
        env = "INTENTD_RELAY_ADMIN_PORT",
        value_name = "PORT",
        default_value = "9100"
    )]
    pub admin_port: AdminPort,
    /// Time from SIGTERM until the process exits, even with records undelivered.
    #[arg(long, env = "INTENTD_RELAY_DRAIN_TIMEOUT", value_name = "TIME", default_value = "25s", value_parser = time::parse)]
    pub drain_timeout: Duration,
    /// Messages to log: error, warn, info, debug, trace, or a tracing filter.
    #[arg(
        long,
        env = "INTENTD_RELAY_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// Format of the log.
    #[arg(
        long,
        env = "INTENTD_RELAY_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

fn parse_sink(text: &str) -> Result<Uri, String> {
    let wrong = || "expected a URL like http://intents.default/predict".to_owned();
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if is_http && has_host {
        Ok(uri)
    } else {
        Err(wrong())
    }
}

impl RelayArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn settings(self) -> Result<RelaySettings, ConfigError> {
        let mut mistakes = logging::filter_mistakes(&self.log);
        let topics = self.kafka.topics();
        mistakes.extend(self.group.mistakes(&topics));
        if self.in_flight == 0 {
            mistakes.push("--in-flight: expected at least 1, found 0".to_owned());
        }
        if self.request_timeout.is_zero() {
            mistakes.push("--request-timeout: expected a time above 0".to_owned());
        }
        let connection = match self.kafka.connection() {
            Ok(Some(connection)) if mistakes.is_empty() => connection,
            Ok(Some(_)) => return Err(ConfigError(mistakes)),
            Ok(None) => {
                let what = if cfg!(feature = "kafka") {
                    "expected the address of a broker, such as kafka:9092"
                } else {
                    NO_KAFKA
                };
                mistakes.push(format!("--kafka-brokers: {what}"));
                return Err(ConfigError(mistakes));
            }
            Err(ConfigError(more)) => {
                mistakes.extend(more);
                return Err(ConfigError(mistakes));
            }
        };
        let admin_port = self.admin_port.get();
        let admin_address = admin_port.map(|port| SocketAddr::from((self.host, port)));
        Ok(RelaySettings {
            source: self.group.source(connection, topics),
            sink: self.sink,
            host: self.domain,
            request_timeout: self.request_timeout,
            is_ordered: self.ordered,
            retry: self.retry,
            retry_delay: self.retry_delay,
            retry_policy: self.retry_policy,
            in_flight: self.in_flight,
            admin_address,
            drain_timeout: self.drain_timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_a_url() {
        assert!(parse_sink("http://intents.default.svc:8080/predict?query=music").is_ok());
        assert!(parse_sink("https://intents.example.com").is_ok());
        for wrong in ["", "intents:8080", "/predict", "ftp://a", "http://"] {
            assert!(parse_sink(wrong).is_err(), "{wrong}");
        }
    }
}
