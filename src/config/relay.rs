//! The flags of `intentd relay`, and their check.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderValue, Uri};

use super::check::log_filter;
use super::{AdminPort, ConfigError, KafkaArgs, KafkaGroupArgs, LogFormat, span};
use crate::error::NO_KAFKA;
use crate::events::{RelaySettings, RetryPolicy};

/// The flags of `intentd relay`.
#[derive(Debug, Clone, clap::Args)]
pub struct RelayArgs {
    /// Where records are POSTed, as CloudEvents in binary mode: a URL like http://intents/predict.
    #[arg(long, env = "INTENTD_RELAY_SINK", value_name = "URL", value_parser = sink)]
    pub sink: Uri,
    /// Name that requests are for (Host), where it is not that of --sink.
    #[arg(long, env = "INTENTD_RELAY_DOMAIN", value_name = "NAME")]
    pub domain: Option<HeaderValue>,
    /// Time for an answer.
    #[arg(long, env = "INTENTD_RELAY_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = span::parse_limit)]
    pub request_timeout: Duration,
    /// Times that a record is tried again before it is a dead letter, whatever the answer was but one that
    /// speaks of the record itself (400, 413, 414, 415, 422, 431). Without --kafka-dead-letter-topic it is
    /// tried until it is taken.
    #[arg(
        long,
        env = "INTENTD_RELAY_RETRY",
        value_name = "N",
        default_value = "10"
    )]
    pub retry: u32,
    /// Unit of the pauses before these tries.
    #[arg(long, env = "INTENTD_RELAY_RETRY_DELAY", value_name = "TIME", default_value = "200ms", value_parser = span::parse)]
    pub retry_delay: Duration,
    /// How these pauses grow, up to five minutes: twice, four, eight times the unit, or once, twice, three
    /// times.
    #[arg(
        long,
        env = "INTENTD_RELAY_RETRY_POLICY",
        value_enum,
        default_value = "exponential"
    )]
    pub retry_policy: RetryPolicy,
    /// Records that are delivered at once, in whatever order they are answered.
    #[arg(
        long,
        env = "INTENTD_RELAY_IN_FLIGHT",
        value_name = "N",
        default_value = "100"
    )]
    pub in_flight: usize,
    /// Which topics are read, and how to reach them.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// As which member of which group.
    #[command(flatten)]
    pub group: KafkaGroupArgs,
    /// Address to listen on.
    #[arg(
        long,
        env = "INTENTD_RELAY_HOST",
        value_name = "IP",
        default_value = "0.0.0.0"
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
    /// Time from SIGTERM to the end, whatever is undelivered then.
    #[arg(long, env = "INTENTD_RELAY_DRAIN_TIMEOUT", value_name = "TIME", default_value = "25s", value_parser = span::parse_limit)]
    pub drain_timeout: Duration,
    /// Which messages are logged: error, warn, info, debug, trace, or a tracing filter.
    #[arg(
        long,
        env = "INTENTD_RELAY_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// How messages are logged.
    #[arg(
        long,
        env = "INTENTD_RELAY_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

fn sink(text: &str) -> Result<Uri, String> {
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
        let mut mistakes = log_filter(&self.log);
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
        let admin_address = match self.admin_port {
            AdminPort::Off => None,
            AdminPort::Port(port) => Some(SocketAddr::from((self.host, port))),
        };
        Ok(RelaySettings {
            source: self.group.source(connection, topics),
            sink: self.sink,
            host: self.domain,
            request_timeout: self.request_timeout,
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
        assert!(sink("http://intents.default.svc:8080/predict?query=music").is_ok());
        assert!(sink("https://intents.example.com").is_ok());
        for wrong in ["", "intents:8080", "/predict", "ftp://a", "http://"] {
            assert!(sink(wrong).is_err(), "{wrong}");
        }
    }
}
