//! Flags, environment and file to one checked, immutable [`Config`].
//!
//! Every flag has the environment variable `INTENTD_<FLAG>`, and a key in the file that `--config`
//! names; a flag wins over the environment, that over the file. Only this module reads the
//! environment. All mistakes are reported at once.

mod check;
mod kafka;
mod model;
mod ports;
mod relay;
mod scaler;
mod serve;
mod sources;
mod span;
mod surface;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::check::{both, log_filter, numbers, origins, places};
pub use self::kafka::{KafkaArgs, KafkaGroupArgs, KafkaSourceArgs};
pub use self::model::ModelArgs;
use self::ports::ADMIN_PORT;
pub(crate) use self::ports::main_port;
pub use self::ports::{AdminPort, MainPort};
pub use self::relay::RelayArgs;
pub use self::scaler::{ScalerArgs, WakeArgs};
pub use self::serve::{
    ConnectionArgs, EndArgs, HintArgs, ListenArgs, LoadArgs, LogFormat, ServeArgs, TraceArgs,
};
pub(crate) use self::sources::toml_mistake;
pub use self::sources::{Settings, Sources, SourcesError};
pub use self::surface::SurfaceArgs;
use crate::api::{self, BodyLimits, EventSettings};
use crate::autoscale;
use crate::events::SourceSettings;
use crate::metrics::TritonMetrics;
use crate::profile::Profile;
use crate::serving::{BatchLimits, Limits, Prior};
use crate::transport::{ConnectionLimits, descriptors};

/// Checked settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which model runs where.
    pub model: ModelArgs,
    /// Where predictions are served over TCP, if they are.
    pub address: Option<SocketAddr>,
    /// Where predictions are served on this machine alone.
    pub unix_socket: Option<PathBuf>,
    /// Where operators look, if anywhere.
    pub admin_address: Option<SocketAddr>,
    /// Certificates and their key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file of keys.
    pub api_keys: Option<PathBuf>,
    /// Bounds on connections.
    pub connections: ConnectionLimits,
    /// Bounds on requests, and who may send them.
    pub surfaces: api::Settings,
    /// Which topics of Kafka are read, if any.
    pub kafka: Option<SourceSettings>,
    /// Where requests are reported.
    pub trace: TraceArgs,
    /// What autoscalers are told.
    pub hints: autoscale::HintSettings,
    /// Bounds on requests, queue and batches.
    pub limits: Limits,
    /// Time after which an engine that does not come back is given up; zero for never.
    pub engine_timeout: Duration,
    /// Time between the signal to stop and the closing of the ports.
    pub lame_duck: Duration,
    /// Time from the signal to stop to the end.
    pub drain_timeout: Duration,
}

/// What the environment says beside the variables of the flags.
#[derive(Debug, Clone, Default)]
pub struct Platform {
    /// `PORT`, which Knative and others set.
    pub port: Option<String>,
    /// What runs this process, if `K_SERVICE` says that Knative does.
    pub knative: Option<Knative>,
    /// The name of this host: in Kubernetes that of the pod.
    pub hostname: Option<String>,
}

/// What Knative calls the thing that it runs (runtime contract, "Process environment").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knative {
    /// `K_SERVICE`; empty for a configuration without a service.
    pub service: String,
    /// `K_CONFIGURATION`.
    pub configuration: String,
    /// `K_REVISION`.
    pub revision: String,
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// File descriptors that are not for connections: the operators' port, files of the model, the
/// runtime's own.
const DESCRIPTORS_KEPT: usize = 512;

/// Connections that are allowed by themselves.
const CONNECTIONS_MAX: usize = 16_384;

/// Where the balancer in front learns that a server goes: the time between two probes of Kubernetes
/// with some to spare. Knative's queue-proxy has waited already when it sends SIGTERM.
const LAME_DUCK: Duration = Duration::from_secs(5);

impl Config {
    /// Checks the flags of `intentd serve`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn new(args: ServeArgs, platform: &Platform) -> Result<Self, ConfigError> {
        let mut mistakes = numbers(&args);
        let ports = places(&args, platform, &mut mistakes);
        let hints = hints(&args, platform);
        let tls = (args.listen.tls_cert, args.listen.tls_key);
        let tls = both("--tls-cert, --tls-key", tls, &mut mistakes);
        let origins = origins(&args.listen.cors_allow_origin, &mut mistakes);
        mistakes.extend(log_filter(&args.log));
        let prior = prior(&args.hints, &mut mistakes);
        let kafka = args.kafka.settings(&mut mistakes);
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        let surface = args.surface;
        let triton = TritonMetrics::new(&surface.model_name);
        let (load, connection, end) = (args.load, args.connection, args.end);
        let lame_duck = if platform.knative.is_some() {
            Duration::ZERO
        } else {
            LAME_DUCK.min(end.drain_timeout / 2)
        };
        Ok(Self {
            model: args.model,
            address: ports.0,
            admin_address: ports.1,
            unix_socket: args.listen.unix_socket,
            tls,
            api_keys: args.listen.api_keys,
            connections: connection_limits(&connection),
            surfaces: api::Settings {
                body: BodyLimits {
                    bytes_max: load.max_body_bytes,
                    memory_max: load.max_body_memory,
                    timeout: span::some(connection.body_timeout).unwrap_or(Duration::MAX),
                },
                request_timeout: span::some(load.request_timeout),
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
                admin_port: ports
                    .1
                    .or(ports.0)
                    .map_or(ADMIN_PORT, |address| address.port()),
            },
            kafka,
            trace: args.trace,
            hints,
            limits: Limits {
                prior,
                ..limits(&load, args.hints.calibration, end.engine_failures)
            },
            engine_timeout: end.engine_timeout,
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
        texts_max: texts_max(load),
        batch: BatchLimits {
            tokens_max: load.max_batch_tokens,
            texts_max: load.max_batch_requests,
        },
        slo: (!load.slo.is_zero()).then_some(load.slo),
        calibrate,
        prior: None,
        engine_failures_max,
    }
}

fn hints(args: &ServeArgs, platform: &Platform) -> autoscale::HintSettings {
    autoscale::HintSettings {
        objective: span::some(args.load.slo).map(|slo| slo.as_secs_f64()),
        utilization: args.hints.target_utilization / 100.0,
        drain: args.hints.backlog_drain.as_secs_f64(),
        trend: args.hints.trend,
        pod: platform.hostname.clone().unwrap_or_default(),
        model: model_name(args.model.model.as_deref()),
    }
}

/// What a checkpoint is called: its directory's name, or that of the embedded model.
pub(crate) fn model_name(directory: Option<&Path>) -> String {
    let name = directory.and_then(Path::file_name);
    let name = name.map_or("intent-snips".into(), OsStr::to_string_lossy);
    name.into_owned()
}

/// What the profile says that `--profile` names.
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

fn texts_max(load: &LoadArgs) -> usize {
    let queue = load.max_queue.unwrap_or(usize::MAX);
    load.max_texts.unwrap_or(queue.min(256))
}

fn connection_limits(args: &ConnectionArgs) -> ConnectionLimits {
    let descriptors = descriptors();
    let room = descriptors - DESCRIPTORS_KEPT.min(descriptors / 2);
    let asked = args.max_connections.unwrap_or(CONNECTIONS_MAX);
    // A hundred years are as good as for ever.
    let or_never = |time| span::some(time).unwrap_or(Duration::from_secs(3_000_000_000));
    ConnectionLimits {
        connections_max: asked.min(room.max(1)),
        streams_max: args.max_streams,
        header_bytes_max: args.max_header_bytes,
        header_timeout: or_never(args.header_timeout),
        idle_timeout: or_never(args.idle_timeout),
    }
}

impl Platform {
    /// What the environment of this process says.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module reads the environment for all"
    )]
    pub fn from_environment() -> Self {
        let named = |name: &str| std::env::var(name).unwrap_or_default();
        let is_knative = std::env::var_os("K_SERVICE").is_some();
        Self {
            port: std::env::var("PORT").ok(),
            knative: is_knative.then(|| Knative {
                service: named("K_SERVICE"),
                configuration: named("K_CONFIGURATION"),
                revision: named("K_REVISION"),
            }),
            hostname: std::env::var("HOSTNAME").ok().or_else(hostname),
        }
    }
}

/// The host's name as Linux has it, where the variable `HOSTNAME` is not exported.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
    fn the_port_comes_from_the_flag_then_from_port_then_is_8080() {
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
    fn knative_has_waited_already() {
        let lame_duck = |flags: &[&str], is_knative: bool| {
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
            Config::new(args, &platform).unwrap().lame_duck.as_secs()
        };
        assert_eq!(lame_duck(&[], false), 5);
        assert_eq!(lame_duck(&[], true), 0);
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
