//! The settings of a server: flags and environment as one checked, immutable [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::checks::{cors_origins, listen_addresses, number_mistakes};
use super::hints::HintArgs;
use super::logging;
use super::mistakes::{ConfigError, both};
use super::model::ModelArgs;
use super::platform::Platform;
use super::ports::ADMIN_PORT;
use super::serve::{ConnectionArgs, LoadArgs, ServeArgs, TraceArgs};
use crate::api::{self, BodyLimits, EventSettings};
use crate::autoscale;
use crate::kafka::SourceSettings;
use crate::metrics::TritonMetrics;
use crate::profile::Profile;
use crate::serving::{BatchLimits, Limits, Prior};
use crate::transport::{ConnectionLimits, TlsFiles, descriptors};

/// File descriptors that are not for connections: the port for operators, files of the model, the
/// runtime's own.
const DESCRIPTORS_RESERVED: usize = 512;

/// Connections allowed unless a flag says otherwise.
const CONNECTIONS_MAX: usize = 16_384;

/// Time for the load balancer to learn that a server shuts down: the interval of Kubernetes' probes and a
/// margin. Knative's queue-proxy goes on to forward requests, unless its preStop hook was run.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// Checked settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model and the engine that runs it.
    pub model: ModelArgs,
    /// TCP address for predictions, if any.
    pub address: Option<SocketAddr>,
    /// Unix socket for predictions, if any.
    pub unix_socket: Option<PathBuf>,
    /// TCP address for operators, if any.
    pub admin_address: Option<SocketAddr>,
    /// Files for TLS on the address for predictions.
    pub tls: Option<TlsFiles>,
    /// File of the API keys.
    pub api_keys: Option<PathBuf>,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// Settings of the surfaces: limits on requests, and who may send them.
    pub surfaces: api::Settings,
    /// Kafka topics to read, if any.
    pub kafka: Option<SourceSettings>,
    /// The collector of traces.
    pub trace: TraceArgs,
    /// Settings of the hints for autoscalers.
    pub hints: autoscale::HintSettings,
    /// Limits on requests, queue and batches.
    pub limits: Limits,
    /// Time without progress after which the engine is given up; `None` for no limit.
    pub engine_timeout: Option<Duration>,
    /// Time from the stop signal until the ports close.
    pub lame_duck: Duration,
    /// Time from the stop signal until the process exits.
    pub drain_timeout: Duration,
}

impl Config {
    /// Checks the flags of `intentd serve`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn new(args: ServeArgs, platform: &Platform) -> Result<Self, ConfigError> {
        let mut mistakes = number_mistakes(&args);
        let addresses = listen_addresses(&args, platform, &mut mistakes);
        let hints = hints(&args, platform);
        let tls = (args.listen.tls_cert, args.listen.tls_key);
        let tls = both("--tls-cert, --tls-key", tls, &mut mistakes);
        let origins = cors_origins(&args.listen.cors_allow_origin, &mut mistakes);
        mistakes.extend(logging::filter_mistakes(&args.log));
        let prior = prior(&args.hints, &mut mistakes);
        let kafka = args.kafka.settings(&mut mistakes);
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        let surface = args.surface;
        let triton = TritonMetrics::new(&surface.model_name);
        let (load, connection, end) = (args.load, args.connection, args.end);
        let lame_duck = LAME_DUCK.min(end.drain_timeout / 2);
        Ok(Self {
            model: args.model,
            address: addresses.main,
            admin_address: addresses.admin,
            unix_socket: args.listen.unix_socket,
            tls: tls.map(|(certificates, key)| TlsFiles {
                certificates,
                key,
                client_ca: None,
            }),
            api_keys: args.listen.api_keys,
            connections: connection_limits(&connection, platform),
            surfaces: api::Settings {
                body: BodyLimits {
                    bytes_max: load.max_body_bytes,
                    memory_max: load.max_body_memory,
                    timeout: connection.body_timeout.get(),
                },
                request_timeout: load.request_timeout.get(),
                keys: None,
                model_name: surface.model_name,
                events: EventSettings {
                    pointer: surface.event_text_pointer,
                    source: surface.event_source,
                    kept: surface.events_kept,
                },
                tracing: None,
                life: None,
                origins,
                orca: args.hints.orca,
                triton: args.hints.triton_metrics.then_some(triton),
                hints_on_main_port: args.hints.hints_on_main_port,
                admin_port: addresses
                    .admin
                    .or(addresses.main)
                    .map_or(ADMIN_PORT, |address| address.port()),
            },
            kafka,
            trace: args.trace,
            hints,
            limits: Limits {
                prior,
                ..limits(&load, args.hints.calibration, end.engine_failures)
            },
            engine_timeout: end.engine_timeout.get(),
            lame_duck: end.lame_duck.unwrap_or(lame_duck),
            drain_timeout: end.drain_timeout,
        })
    }
}

fn limits(load: &LoadArgs, calibrate: bool, engine_failures_max: u32) -> Limits {
    Limits {
        concurrency_max: load.max_concurrency,
        queue_max: load.max_queue,
        list_share: load.max_list_share,
        texts_max: load.texts_max(),
        batch: BatchLimits {
            tokens_max: load.max_batch_tokens,
            texts_max: load.max_batch_texts,
        },
        slo: load.slo.get(),
        calibrate,
        prior: None,
        engine_failures_max,
    }
}

fn hints(args: &ServeArgs, platform: &Platform) -> autoscale::HintSettings {
    autoscale::HintSettings {
        objective: args.load.slo.get().map(|slo| slo.as_secs_f64()),
        utilization: args.hints.target_utilization / 100.0,
        drain: args.hints.backlog_drain.as_secs_f64(),
        trend: args.hints.trend,
        pod: platform.hostname.clone().unwrap_or_default(),
        model: args.model.checkpoint_name(),
    }
}

/// The prior from the file that `--profile` names.
fn prior(args: &HintArgs, mistakes: &mut Vec<String>) -> Option<Arc<Prior>> {
    let path = args.profile.as_deref()?;
    match Profile::read(path) {
        Ok(profile) => Some(Arc::new(profile.prior(path))),
        Err(error) => {
            mistakes.push(format!("--profile: {error}"));
            None
        }
    }
}

fn connection_limits(args: &ConnectionArgs, platform: &Platform) -> ConnectionLimits {
    let descriptors = descriptors();
    let available = descriptors - DESCRIPTORS_RESERVED.min(descriptors / 2);
    let wanted = args.max_connections.unwrap_or(CONNECTIONS_MAX);
    ConnectionLimits {
        connections_max: wanted.min(available.max(1)),
        streams_max: args.max_streams,
        header_bytes_max: args.max_header_bytes,
        header_timeout: args.header_timeout.get(),
        idle_timeout: args.idle_timeout.get(),
        suppresses_continue: platform.knative.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::platform::Knative;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn config(flags: &[&str], port: Option<&str>) -> Result<Config, ConfigError> {
        let line = std::iter::once("intentd").chain(flags.iter().copied());
        let platform = Platform {
            port: port.map(str::to_owned),
            ..Platform::default()
        };
        Config::new(Command::try_parse_from(line).unwrap().serve, &platform)
    }

    #[test]
    fn the_flag_overrides_port_and_port_overrides_8080() {
        let port = |flags: &[&str], port| config(flags, port).unwrap().address.unwrap().port();
        assert_eq!(port(&[], None), 8080);
        assert_eq!(port(&[], Some("9000")), 9000);
        assert_eq!(port(&["--port", "7000"], Some("9000")), 7000);
        let service_link = ["--port", "tcp://10.0.0.1:80"];
        assert_eq!(port(&service_link, Some("9000")), 9000);
        assert_eq!(port(&service_link, None), 8080);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let flags = [
            "--max-queue",
            "0",
            "--max-texts",
            "5",
            "--log",
            "a=b=c",
            "--tls-key",
            "key.pem",
        ];
        let error = config(&flags, Some("http")).unwrap_err();
        let text = error.to_string();
        for flag in ["--max-queue", "--max-texts", "PORT", "--log", "--tls-cert"] {
            assert!(text.contains(flag), "{flag} is missing from:\n{text}");
        }
        assert_eq!(error.0.len(), 5);
    }

    #[test]
    fn the_admin_port_can_be_off_but_not_the_main_port() {
        let link = config(&["--admin-port", "tcp://10.0.0.1:80"], None).unwrap();
        assert_eq!(
            link.admin_address.map(|address| address.port()),
            Some(ADMIN_PORT)
        );
        assert_eq!(
            config(&["--admin-port", "off"], None)
                .unwrap()
                .admin_address,
            None
        );
        assert!(config(&["--port", "9100"], None).is_err());
        assert!(config(&["--port", "0", "--admin-port", "0"], None).is_ok());
    }

    #[test]
    fn the_lame_duck_delay_and_expectations_under_knative() {
        let config = |flags: &[&str], is_knative: bool| {
            let line = std::iter::once("intentd").chain(flags.iter().copied());
            let platform = Platform {
                knative: is_knative.then(|| Knative {
                    service: "shop".to_owned(),
                    configuration: "shop".to_owned(),
                    revision: "shop-00001".to_owned(),
                }),
                ..Platform::default()
            };
            let args = Command::try_parse_from(line).unwrap().serve;
            Config::new(args, &platform).unwrap()
        };
        let lame_duck = |flags: &[_], is_knative| config(flags, is_knative).lame_duck.as_secs();
        assert_eq!(lame_duck(&[], false), 5);
        assert_eq!(lame_duck(&[], true), 5, "queue-proxy still forwards");
        assert_eq!(lame_duck(&["--drain-timeout", "4s"], true), 2);
        assert!(config(&[], true).connections.suppresses_continue);
        assert!(!config(&[], false).connections.suppresses_continue);
        assert_eq!(lame_duck(&["--lame-duck", "7"], true), 7);
        assert_eq!(lame_duck(&["--lame-duck", "off"], false), 0);
    }

    #[test]
    fn a_server_without_any_port_is_a_mistake() {
        assert!(config(&["--port", "off"], None).is_err());
        let socket = config(&["--port", "off", "--unix-socket", "s"], Some("80")).unwrap();
        assert_eq!(socket.address, None);
        for wrong in [
            "example.com",
            "https://example.com/",
            "nonsense",
            "https://*.b",
            "HTTPS://a",
        ] {
            assert!(config(&["--cors-allow-origin", wrong], None).is_err());
        }
    }
}
