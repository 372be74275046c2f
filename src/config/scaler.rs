//! The flags of `intentd scaler`, and their check.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;

use super::check::log_filter;
use super::{AdminPort, ConfigError, LogFormat, MainPort, span};
use crate::error::NO_KAFKA;
use crate::scaler::{Config, Defaults, Endpoint, PrometheusUrl, Staleness};
use crate::transport::TlsFiles;

/// Where KEDA asks unless told otherwise.
const PORT: u16 = 9101;

/// Rounds that follow each other faster would only load the replicas.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Workloads and replicas that fit into what such a process should need.
const WORKLOADS_MAX: usize = 10_000;
const REPLICAS_MAX: usize = 100_000;

/// The flags of `intentd scaler`.
#[derive(Debug, Clone, clap::Args)]
pub struct ScalerArgs {
    /// Where replicas are: host:port, separated by commas, of which each name is resolved afresh each
    /// time to all its addresses. A trigger may name its own (replicas).
    #[arg(
        long,
        env = "INTENTD_SCALER_REPLICAS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub replicas: Vec<Entry<Endpoint>>,
    /// Time between two rounds of asking all replicas.
    #[arg(long, env = "INTENTD_SCALER_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = span::parse_limit)]
    pub interval: Duration,
    /// Time for a replica's answer.
    #[arg(long, env = "INTENTD_SCALER_TIMEOUT", value_name = "TIME", default_value = "1s", value_parser = span::parse_limit)]
    pub timeout: Duration,
    /// Time for which a replica that does not answer counts with its last demand.
    #[arg(long, env = "INTENTD_SCALER_KEEP", value_name = "TIME", default_value = "30s", value_parser = span::parse)]
    pub keep: Duration,
    /// Time for which the last sum is given when DNS fails or no replica answers; then KEDA gets
    /// UNAVAILABLE.
    #[arg(long, env = "INTENTD_SCALER_STALE_AFTER", value_name = "TIME", default_value = "5m", value_parser = span::parse)]
    pub stale_after: Duration,
    /// Demand in replicas above which a workload is active. A trigger may choose its own
    /// (activationDemand).
    #[arg(
        long,
        env = "INTENTD_SCALER_ACTIVATION_DEMAND",
        value_name = "REPLICAS",
        default_value = "0"
    )]
    pub activation_demand: f64,
    /// Replicas that one workload may have; with more, it is unknown.
    #[arg(
        long,
        env = "INTENTD_SCALER_MAX_REPLICAS",
        value_name = "N",
        default_value = "1000"
    )]
    pub max_replicas: usize,
    /// Workloads watched at once; triggers that differ in what they ask for count each.
    #[arg(
        long,
        env = "INTENTD_SCALER_MAX_WORKLOADS",
        value_name = "N",
        default_value = "64"
    )]
    pub max_workloads: usize,
    /// Time after which a workload is dropped that no call and no stream asks about.
    #[arg(long, env = "INTENTD_SCALER_FORGET_AFTER", value_name = "TIME", default_value = "10m", value_parser = span::parse_limit)]
    pub forget_after: Duration,
    /// Refuses triggers that name replicas or signs of work of their own.
    #[arg(long, env = "INTENTD_SCALER_FIXED", value_parser = BoolishValueParser::new())]
    pub fixed: bool,
    /// What wakes a workload that has no replica.
    #[command(flatten)]
    pub wake: WakeArgs,
    /// Address to listen on.
    #[arg(
        long,
        env = "INTENTD_SCALER_HOST",
        value_name = "IP",
        default_value = "0.0.0.0"
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
    /// PEM file with the certificates for TLS on --port; read again when it changes.
    #[arg(long, env = "INTENTD_SCALER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key for TLS.
    #[arg(long, env = "INTENTD_SCALER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// PEM file with authorities, of one of which a client must have a certificate; read again when it
    /// changes.
    #[arg(long, env = "INTENTD_SCALER_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Time from SIGTERM to the end, whatever is unanswered then.
    #[arg(long, env = "INTENTD_SCALER_DRAIN_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = span::parse_limit)]
    pub drain_timeout: Duration,
    /// Which messages are logged: error, warn, info, debug, trace, or a tracing filter.
    #[arg(
        long,
        env = "INTENTD_SCALER_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// How messages are logged.
    #[arg(
        long,
        env = "INTENTD_SCALER_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// What wakes a workload that has no replica.
#[derive(Debug, Clone, clap::Args)]
pub struct WakeArgs {
    /// Prometheus that is asked whether there is work, like http://prometheus:9090 or with https. A
    /// trigger may name its own (wakePrometheus).
    #[arg(long, env = "INTENTD_SCALER_WAKE_PROMETHEUS", value_name = "URL")]
    pub wake_prometheus: Option<PrometheusUrl>,
    /// Query that gives one number; no series is 0. A trigger may have its own (wakeQuery).
    #[arg(long, env = "INTENTD_SCALER_WAKE_QUERY", value_name = "PROMQL")]
    pub wake_query: Option<String>,
    /// Time between two looks at a sign of work.
    #[arg(long, env = "INTENTD_SCALER_WAKE_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = span::parse_limit)]
    pub wake_interval: Duration,
    /// The workload is active above it. A trigger may have its own (wakeThreshold).
    #[arg(
        long,
        env = "INTENTD_SCALER_WAKE_THRESHOLD",
        value_name = "NUMBER",
        default_value = "0",
        allow_negative_numbers = true
    )]
    pub wake_threshold: f64,
    /// Kafka whose lag says whether there is work: host:port, separated by commas. A trigger may name
    /// its own (wakeKafka). Needs a build with --features kafka, as do the next four.
    #[arg(long, env = "INTENTD_SCALER_WAKE_KAFKA", value_name = "BOOTSTRAP")]
    pub wake_kafka: Option<String>,
    /// Topic that is read. A trigger may have its own (wakeTopic).
    #[arg(long, env = "INTENTD_SCALER_WAKE_TOPIC", value_name = "TOPIC")]
    pub wake_topic: Option<String>,
    /// Consumer group that reads it. A trigger may have its own (wakeGroup).
    #[arg(long, env = "INTENTD_SCALER_WAKE_GROUP", value_name = "GROUP")]
    pub wake_group: Option<String>,
    /// The workload is active above so many records of lag. A trigger may have its own (wakeLag).
    #[arg(
        long,
        env = "INTENTD_SCALER_WAKE_LAG",
        value_name = "RECORDS",
        default_value = "0"
    )]
    pub wake_lag: u64,
    /// Setting of librdkafka for --wake-kafka, such as those of security; may come more than once, in
    /// the environment one a line.
    #[arg(
        long,
        env = "INTENTD_SCALER_KAFKA_CONFIG",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        value_parser = entry,
        hide_env_values = true
    )]
    pub kafka_config: Vec<Entry<(String, String)>>,
}

/// One of a list, or the blank that a comma or a newline at its end leaves.
#[derive(Debug, Clone)]
pub struct Entry<T>(pub(super) Option<T>);

impl<T: FromStr> FromStr for Entry<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let is_blank = text.trim().is_empty();
        Ok(Self(if is_blank { None } else { Some(text.parse()?) }))
    }
}

/// Those of a list that are not blank.
pub(super) fn entries<T>(list: Vec<Entry<T>>) -> Vec<T> {
    list.into_iter().filter_map(|entry| entry.0).collect()
}

pub(super) fn entry(text: &str) -> Result<Entry<(String, String)>, String> {
    if text.trim().is_empty() {
        return Ok(Entry(None));
    }
    setting(text).map(|setting| Entry(Some(setting)))
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.trim().split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        // What was found may be a secret.
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

impl Config {
    /// Checks the flags of `intentd scaler`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn new(args: ScalerArgs) -> Result<Self, ConfigError> {
        let mut mistakes = args.mistakes();
        let port = match args.port {
            Some(MainPort::Port(port)) => port,
            None | Some(MainPort::ServiceLink) => PORT,
            Some(MainPort::Off) => {
                mistakes.push("--port: expected a port, found \"off\"".to_owned());
                0
            }
        };
        let admin = match args.admin_port {
            AdminPort::Off => None,
            AdminPort::Port(port) => Some(port),
        };
        if port != 0 && admin == Some(port) {
            mistakes.push(format!(
                "--admin-port: expected another port than --port, found {port} for both"
            ));
        }
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        let tls = args.tls_cert.zip(args.tls_key);
        let wake = args.wake;
        Ok(Self {
            address: SocketAddr::from((args.host, port)),
            admin_address: admin.map(|port| SocketAddr::from((args.host, port))),
            tls: tls.map(|(certificates, key)| TlsFiles {
                certificates,
                key,
                client_ca: args.tls_client_ca,
            }),
            defaults: Defaults {
                endpoints: entries(args.replicas),
                activation: args.activation_demand,
                prometheus: wake.wake_prometheus,
                query: wake.wake_query,
                threshold: wake.wake_threshold,
                bootstrap: wake.wake_kafka,
                topic: wake.wake_topic,
                group: wake.wake_group,
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a lag beyond 2^53 is as good as exact"
                )]
                lag: wake.wake_lag as f64,
                kafka_settings: entries(wake.kafka_config),
                is_fixed: args.fixed,
            },
            interval: args.interval,
            wake_interval: wake.wake_interval,
            timeout: args.timeout,
            staleness: Staleness {
                keep: args.keep,
                stale_after: args.stale_after,
            },
            replicas_max: args.max_replicas,
            workloads_max: args.max_workloads,
            forget_after: args.forget_after,
            drain_timeout: args.drain_timeout,
        })
    }
}

impl ScalerArgs {
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = log_filter(&self.log);
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
        let has_replicas = self.replicas.iter().any(|entry| entry.0.is_some());
        if self.fixed && !has_replicas {
            let what =
                "--replicas: expected host:port beside --fixed, since no trigger may name any";
            mistakes.push(what.to_owned());
        }
        // They hold for the workload of the flags alone.
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
        let is_asked = self.wake_kafka.is_some()
            || topic
            || group
            || self.kafka_config.iter().any(|entry| entry.0.is_some());
        if is_asked && !cfg!(feature = "kafka") {
            wrong(&format!("--wake-kafka: {NO_KAFKA}"));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests;
