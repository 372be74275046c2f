//! The flags of `intentd scaler` and their check.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;

use super::host::parse_host;
use super::list::{ListItem, items, parse_property};
use super::logging::{self, LogFormat};
use super::mistakes::ConfigError;
use super::ports::{AdminPort, MainPort};
use super::time;
use crate::scaler::{Config, Defaults, Endpoint, PrometheusUrl, Staleness};
use crate::transport::TlsFiles;
use intentd_base::NO_KAFKA;

/// Port for KEDA unless a flag says otherwise.
const PORT: u16 = 9101;

/// The shortest interval; a shorter one would only load the replicas.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The highest bounds on workloads and replicas, for the memory of the process.
const WORKLOADS_MAX: usize = 10_000;
const REPLICAS_MAX: usize = 100_000;

/// The flags of `intentd scaler`.
#[derive(Debug, Clone, clap::Args)]
pub struct ScalerArgs {
    /// Replicas: host:port, separated by commas. Each name stands for all its addresses and is resolved again
    /// in each round. A trigger may name its own (replicas).
    #[arg(
        long,
        env = "INTENTD_SCALER_REPLICAS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub replicas: Vec<ListItem<Endpoint>>,
    /// Interval between two polls of all replicas.
    #[arg(long, env = "INTENTD_SCALER_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = time::parse)]
    pub interval: Duration,
    /// Time for a replica to answer.
    #[arg(long, env = "INTENTD_SCALER_TIMEOUT", value_name = "TIME", default_value = "1s", value_parser = time::parse)]
    pub timeout: Duration,
    /// Time for which the last demand of a replica counts when it does not answer.
    #[arg(long, env = "INTENTD_SCALER_KEEP", value_name = "TIME", default_value = "30s", value_parser = time::parse_or_off)]
    pub keep: Duration,
    /// Time for which what is known counts when DNS, all replicas or a wake source do not answer; then KEDA gets
    /// UNAVAILABLE.
    #[arg(long, env = "INTENTD_SCALER_STALE_AFTER", value_name = "TIME", default_value = "5m", value_parser = time::parse_or_off)]
    pub stale_after: Duration,
    /// Demand in replicas above which a workload is active. A trigger may set its own (activationDemand).
    #[arg(
        long,
        env = "INTENTD_SCALER_ACTIVATION_DEMAND",
        value_name = "REPLICAS",
        default_value = "0"
    )]
    pub activation_demand: f64,
    /// Replicas of one workload; the demand of a workload with more is unknown.
    #[arg(
        long,
        env = "INTENTD_SCALER_MAX_REPLICAS",
        value_name = "N",
        default_value = "1000"
    )]
    pub max_replicas: usize,
    /// Workloads watched at once. Triggers with different metadata count separately.
    #[arg(
        long,
        env = "INTENTD_SCALER_MAX_WORKLOADS",
        value_name = "N",
        default_value = "64"
    )]
    pub max_workloads: usize,
    /// Time after which a workload is dropped if no call and no stream asks for it.
    #[arg(long, env = "INTENTD_SCALER_FORGET_AFTER", value_name = "TIME", default_value = "10m", value_parser = time::parse)]
    pub forget_after: Duration,
    /// Refuse triggers that name their own replicas or wake sources.
    #[arg(long, env = "INTENTD_SCALER_FIXED", value_parser = BoolishValueParser::new())]
    pub fixed: bool,
    /// The sources that wake a workload without replicas.
    #[command(flatten)]
    pub wake: WakeArgs,
    /// IP address or name to listen on; :: is all addresses, those of IPv4 too.
    #[arg(
        long,
        env = "INTENTD_SCALER_HOST",
        value_name = "HOST",
        default_value = "::",
        value_parser = parse_host
    )]
    pub host: IpAddr,
    /// Port for KEDA (gRPC); 0 picks a free one [default: 9101].
    #[arg(long, env = "INTENTD_SCALER_PORT", value_name = "PORT")]
    pub port: Option<MainPort>,
    /// Port for operators (/metrics, /healthz, /readyz): a number, 0 for a free one, or "off".
    #[arg(
        long,
        env = "INTENTD_SCALER_ADMIN_PORT",
        value_name = "PORT",
        default_value = "9102"
    )]
    pub admin_port: AdminPort,
    /// PEM file with the certificates for TLS on --port; reloaded when it changes.
    #[arg(long, env = "INTENTD_SCALER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key for TLS.
    #[arg(long, env = "INTENTD_SCALER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// PEM file with authorities; clients need a certificate from one of them. Reloaded when it changes.
    #[arg(long, env = "INTENTD_SCALER_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Time from SIGTERM until the process exits, even with calls unanswered.
    #[arg(long, env = "INTENTD_SCALER_DRAIN_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time::parse)]
    pub drain_timeout: Duration,
    /// Messages to log: error, warn, info, debug, trace, or a tracing filter.
    #[arg(
        long,
        env = "INTENTD_SCALER_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// Format of the log.
    #[arg(
        long,
        env = "INTENTD_SCALER_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// The sources that wake a workload without replicas.
#[derive(Debug, Clone, clap::Args)]
pub struct WakeArgs {
    /// URL of the Prometheus that answers --wake-query, such as http://prometheus:9090. A trigger may name its
    /// own (wakePrometheus).
    #[arg(long, env = "INTENTD_SCALER_WAKE_PROMETHEUS", value_name = "URL")]
    pub wake_prometheus: Option<PrometheusUrl>,
    /// Query whose result is one number; no series counts as 0. A trigger may set its own (wakeQuery).
    #[arg(long, env = "INTENTD_SCALER_WAKE_QUERY", value_name = "PROMQL")]
    pub wake_query: Option<String>,
    /// Interval between two polls of a wake source.
    #[arg(long, env = "INTENTD_SCALER_WAKE_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = time::parse)]
    pub wake_interval: Duration,
    /// Result of the query above which the workload is active. A trigger may set its own (wakeThreshold).
    #[arg(
        long,
        env = "INTENTD_SCALER_WAKE_THRESHOLD",
        value_name = "NUMBER",
        default_value = "0",
        allow_negative_numbers = true
    )]
    pub wake_threshold: f64,
    /// Bootstrap brokers of the Kafka whose lag wakes the workload: host:port, separated by commas. A trigger
    /// may name its own (wakeKafka). Needs a build with --features kafka, as do the next four.
    #[arg(long, env = "INTENTD_SCALER_WAKE_KAFKA", value_name = "BOOTSTRAP")]
    pub wake_kafka: Option<String>,
    /// Topic whose lag is read. A trigger may set its own (wakeTopic).
    #[arg(long, env = "INTENTD_SCALER_WAKE_TOPIC", value_name = "TOPIC")]
    pub wake_topic: Option<String>,
    /// Consumer group that reads the topic. A trigger may set its own (wakeGroup).
    #[arg(long, env = "INTENTD_SCALER_WAKE_GROUP", value_name = "GROUP")]
    pub wake_group: Option<String>,
    /// Lag in records above which the workload is active. A trigger may set its own (wakeLag).
    #[arg(
        long,
        env = "INTENTD_SCALER_WAKE_LAG",
        value_name = "RECORDS",
        default_value = "0"
    )]
    pub wake_lag: u64,
    /// Property of librdkafka for --wake-kafka, such as those for security. May be repeated; in the environment,
    /// one on each line.
    #[arg(
        long,
        env = "INTENTD_SCALER_KAFKA_CONFIG",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        value_parser = parse_property,
        hide_env_values = true
    )]
    pub kafka_config: Vec<ListItem<(String, String)>>,
}

impl ScalerArgs {
    /// Checks the flags of `intentd scaler`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn checked(self) -> Result<Config, ConfigError> {
        let mut mistakes = self.mistakes();
        let port = match self.port {
            Some(MainPort::Port(port)) => port,
            None | Some(MainPort::ServiceLink) => PORT,
            Some(MainPort::Off) => {
                mistakes.push("--port: expected a port, found \"off\"".to_owned());
                0
            }
        };
        let admin = self.admin_port.get();
        if port != 0 && admin == Some(port) {
            mistakes.push(format!(
                "--admin-port: expected another port than --port, found {port} for both"
            ));
        }
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        let tls = self.tls_cert.zip(self.tls_key);
        let wake = self.wake;
        Ok(Config {
            address: SocketAddr::from((self.host, port)),
            admin_address: admin.map(|port| SocketAddr::from((self.host, port))),
            tls: tls.map(|(certificates, key)| TlsFiles {
                certificates,
                key,
                client_ca: self.tls_client_ca,
            }),
            defaults: Defaults {
                endpoints: items(self.replicas),
                activation: self.activation_demand,
                prometheus: wake.wake_prometheus,
                query: wake.wake_query,
                threshold: wake.wake_threshold,
                bootstrap: wake.wake_kafka,
                topic: wake.wake_topic,
                group: wake.wake_group,
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "rounding a lag above 2^53 changes nothing"
                )]
                lag: wake.wake_lag as f64,
                kafka_settings: items(wake.kafka_config),
                is_fixed: self.fixed,
            },
            interval: self.interval,
            wake_interval: wake.wake_interval,
            timeout: self.timeout,
            staleness: Staleness {
                keep: self.keep,
                stale_after: self.stale_after,
            },
            replicas_max: self.max_replicas,
            workloads_max: self.max_workloads,
            forget_after: self.forget_after,
            drain_timeout: self.drain_timeout,
        })
    }
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = logging::filter_mistakes(&self.log);
        for (flag, found, least) in [
            ("--interval", self.interval, INTERVAL_MIN),
            ("--wake-interval", self.wake.wake_interval, INTERVAL_MIN),
            ("--timeout", self.timeout, Duration::from_millis(1)),
            ("--forget-after", self.forget_after, Duration::from_secs(1)),
        ] {
            if found < least {
                mistakes.push(format!(
                    "{flag}: expected at least {least:?}, found {found:?}"
                ));
            }
        }
        for (flag, found, most) in [
            ("--max-replicas", self.max_replicas, REPLICAS_MAX),
            ("--max-workloads", self.max_workloads, WORKLOADS_MAX),
        ] {
            if !(1..=most).contains(&found) {
                mistakes.push(format!("{flag}: expected from 1 to {most}, found {found}"));
            }
        }
        let found = self.activation_demand;
        if !(found.is_finite() && found >= 0.0) {
            mistakes.push(format!(
                "--activation-demand: expected a number from 0, found {found}"
            ));
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            let what = "--tls-cert, --tls-key: expected both or neither, found one";
            mistakes.push(what.to_owned());
        }
        if self.tls_client_ca.is_some() && self.tls_cert.is_none() {
            mistakes.push("--tls-client-ca: expected --tls-cert beside it".to_owned());
        }
        let has_replicas = self.replicas.iter().any(|item| item.value().is_some());
        if self.fixed && !has_replicas {
            let what =
                "--replicas: expected host:port beside --fixed, since no trigger may name any";
            mistakes.push(what.to_owned());
        }
        // These flags apply only to the workload of --replicas.
        let wake = &self.wake;
        let wakes = [&wake.wake_query, &wake.wake_topic, &wake.wake_group];
        if !has_replicas && wakes.iter().any(|flag| flag.is_some()) {
            let what = "--wake-query, --wake-topic, --wake-group: expected --replicas beside them, \
                        which they wake";
            mistakes.push(what.to_owned());
        }
        mistakes.extend(wake.mistakes());
        mistakes
    }
}

impl WakeArgs {
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut wrong = |what: &str| mistakes.push(what.to_owned());
        if self.wake_query.is_some() && self.wake_prometheus.is_none() {
            wrong("--wake-query: expected --wake-prometheus beside it");
        }
        if !self.wake_threshold.is_finite() {
            wrong("--wake-threshold: expected a number");
        }
        let (topic, group) = (self.wake_topic.is_some(), self.wake_group.is_some());
        if topic != group || (topic && self.wake_kafka.is_none()) {
            wrong(
                "--wake-kafka, --wake-topic, --wake-group: expected all three, or --wake-kafka alone",
            );
        }
        let is_configured = self.wake_kafka.is_some()
            || topic
            || group
            || self.kafka_config.iter().any(|item| item.value().is_some());
        if is_configured && !cfg!(feature = "kafka") {
            wrong(&format!("--wake-kafka: {NO_KAFKA}"));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests;
