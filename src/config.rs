//! Flags and environment to one checked, immutable [`Config`].
//!
//! Every flag has the environment variable `INTENTD_<FLAG>`; a flag wins over it. Only this
//! module reads the environment. All mistakes are reported at once.

mod ports;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::ports::main_port;
pub use self::ports::{AdminPort, MainPort};
use crate::engine::{DeviceChoice, Dtype, EngineKind, EngineOptions, IsaLimit};
use crate::serving::{BatchLimits, Limits};

/// Which model runs where.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Directory of a Hugging Face BERT classifier; the embedded model when not given.
    #[arg(long, env = "INTENTD_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where the model runs: auto (a GPU where there is one), cpu, cuda, or cuda:N.
    #[arg(
        long,
        env = "INTENTD_DEVICE",
        value_name = "DEVICE",
        default_value = "auto"
    )]
    pub device: DeviceChoice,
    /// What runs the model.
    #[arg(long, env = "INTENTD_ENGINE", value_enum, default_value = "native")]
    pub engine: EngineKind,
    /// Type of weights and activations [default: f16 on CUDA, f32 on the CPU].
    #[arg(long, env = "INTENTD_DTYPE", value_enum)]
    pub dtype: Option<Dtype>,
    /// CUDA graphs kept at once, one a size of batch; 0 for none.
    #[arg(
        long,
        env = "INTENTD_MAX_CUDA_GRAPHS",
        value_name = "N",
        default_value = "128"
    )]
    pub max_cuda_graphs: usize,
    /// Cores the engine computes on; all that the process may use when not given.
    #[arg(long, env = "INTENTD_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Vector instructions the CPU engine uses at most: best (what there is), avx512, avx2
    /// (NEON on ARM) or generic.
    #[arg(
        long,
        env = "INTENTD_CPU_ISA",
        value_name = "ISA",
        default_value = "best"
    )]
    pub cpu_isa: IsaLimit,
}

impl ModelArgs {
    /// Cores for the engine: the flag, or what the operating system (its cgroup quota included)
    /// lets this process use.
    pub fn threads(&self) -> NonZeroUsize {
        let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(available)
    }

    /// What the engine is made from, for batches within `limits`.
    pub fn engine_options(&self, limits: BatchLimits) -> EngineOptions {
        EngineOptions {
            kind: self.engine,
            device: self.device,
            dtype: self.dtype,
            threads: self.threads(),
            cpu_isa: self.cpu_isa,
            batch_tokens_max: limits.tokens_max,
            batch_sequences_max: limits.texts_max,
            graphs_max: self.max_cuda_graphs,
        }
    }
}

/// The flags of `intentd serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Which model runs where.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Address to listen on.
    #[arg(
        long,
        env = "INTENTD_HOST",
        value_name = "IP",
        default_value = "0.0.0.0"
    )]
    pub host: IpAddr,
    /// Port for predictions; also set by PORT. 0 picks a free one [default: 8080].
    #[arg(long, env = "INTENTD_PORT", value_name = "PORT")]
    pub port: Option<MainPort>,
    /// Port for operators (/metrics, /healthz, /readyz): a number, 0 for a free one, or "off".
    #[arg(
        long,
        env = "INTENTD_ADMIN_PORT",
        value_name = "PORT",
        default_value = "9100"
    )]
    pub admin_port: AdminPort,
    /// Requests in flight at once; one more is refused with 429.
    #[arg(
        long,
        env = "INTENTD_MAX_CONCURRENCY",
        value_name = "N",
        default_value = "512"
    )]
    pub max_concurrency: usize,
    /// Texts that may wait for the engine; one more is refused with 429.
    #[arg(
        long,
        env = "INTENTD_MAX_QUEUE",
        value_name = "N",
        default_value = "2048"
    )]
    pub max_queue: usize,
    /// Texts in one request; a longer list is refused with 422 [default: 256 or --max-queue].
    #[arg(long, env = "INTENTD_MAX_TEXTS", value_name = "N")]
    pub max_texts: Option<usize>,
    /// Tokens in one batch.
    #[arg(
        long,
        env = "INTENTD_MAX_BATCH_TOKENS",
        value_name = "N",
        default_value = "4096"
    )]
    pub max_batch_tokens: usize,
    /// Texts in one batch.
    #[arg(
        long,
        env = "INTENTD_MAX_BATCH_REQUESTS",
        value_name = "N",
        default_value = "256"
    )]
    pub max_batch_requests: usize,
    /// Size of a request's body in bytes; a larger one is refused with 413.
    #[arg(
        long,
        env = "INTENTD_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "2097152"
    )]
    pub max_body_bytes: usize,
    /// Seconds after which a GPU that does not come back is given up; 0 waits for ever.
    #[arg(
        long,
        env = "INTENTD_ENGINE_TIMEOUT",
        value_name = "SECONDS",
        default_value = "60"
    )]
    pub engine_timeout: u64,
    /// Seconds that admitted requests get to finish after SIGTERM.
    #[arg(
        long,
        env = "INTENTD_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value = "30"
    )]
    pub drain_timeout: u64,
    /// Which messages are logged: error, warn, info, debug, trace, or a tracing filter.
    #[arg(
        long,
        env = "INTENTD_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// How messages are logged.
    #[arg(long, env = "INTENTD_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text a message.
    Text,
    /// One JSON object a message.
    Json,
}

/// Checked settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which model runs where.
    pub model: ModelArgs,
    /// Where predictions are served.
    pub address: SocketAddr,
    /// Where operators look, if anywhere.
    pub admin_address: Option<SocketAddr>,
    /// Bounds on requests, queue and batches.
    pub limits: Limits,
    /// Bytes in a request's body.
    pub body_bytes_max: usize,
    /// Time after which an engine that does not come back is given up; zero for never.
    pub engine_timeout: Duration,
    /// Time for admitted requests after the signal to stop.
    pub drain_timeout: Duration,
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Checks the flags of `intentd serve`; `port` is the value of the variable `PORT`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn new(args: ServeArgs, port: Option<&str>) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let max_texts = args.max_texts.unwrap_or(args.max_queue.min(256));
        for (flag, value) in [
            ("--max-concurrency", args.max_concurrency),
            ("--max-queue", args.max_queue),
            ("--max-texts", max_texts),
            ("--max-batch-tokens", args.max_batch_tokens),
            ("--max-batch-requests", args.max_batch_requests),
            ("--max-body-bytes", args.max_body_bytes),
        ] {
            if value == 0 {
                mistakes.push(format!("{flag}: expected at least 1, found 0"));
            }
        }
        if max_texts > args.max_queue {
            mistakes.push(format!(
                "--max-texts: expected at most --max-queue ({}), since a list waits as a whole, \
                 found {}",
                args.max_queue, max_texts
            ));
        }
        let main_port = main_port(args.port, port).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            0
        });
        if main_port != 0 && args.admin_port == AdminPort::Port(main_port) {
            mistakes.push(format!(
                "--admin-port: expected another port than --port, found {main_port} for both"
            ));
        }
        if let Err(error) = args.log.parse::<tracing_subscriber::EnvFilter>() {
            mistakes.push(format!(
                "--log: expected a tracing filter, found {:?}: {error}",
                args.log
            ));
        }
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        Ok(Self {
            model: args.model,
            address: (args.host, main_port).into(),
            admin_address: match args.admin_port {
                AdminPort::Off => None,
                AdminPort::Port(port) => Some((args.host, port).into()),
            },
            limits: Limits {
                concurrency_max: args.max_concurrency,
                queue_max: args.max_queue,
                texts_max: max_texts,
                batch: BatchLimits {
                    tokens_max: args.max_batch_tokens,
                    texts_max: args.max_batch_requests,
                },
            },
            body_bytes_max: args.max_body_bytes,
            engine_timeout: Duration::from_secs(args.engine_timeout),
            drain_timeout: Duration::from_secs(args.drain_timeout),
        })
    }

    /// As [`new`](Self::new), with `PORT` from the environment.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_environment(args: ServeArgs) -> Result<Self, ConfigError> {
        Self::new(args, port_variable().as_deref())
    }
}

/// The variable `PORT`, which Knative and others set.
#[expect(
    clippy::disallowed_methods,
    reason = "this module reads the environment for all"
)]
pub(crate) fn port_variable() -> Option<String> {
    std::env::var("PORT").ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::ports::ADMIN_PORT;
    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn config(flags: &[&str], port: Option<&str>) -> Result<Config, ConfigError> {
        let line = std::iter::once("intentd").chain(flags.iter().copied());
        Config::new(Command::try_parse_from(line).unwrap().serve, port)
    }

    #[test]
    fn the_port_comes_from_the_flag_then_from_port_then_is_8080() {
        let port = |flags: &[&str], port| config(flags, port).unwrap().address.port();
        assert_eq!(port(&[], None), 8080);
        assert_eq!(port(&[], Some("9000")), 9000);
        assert_eq!(port(&["--port", "7000"], Some("9000")), 7000);
        let service_link = ["--port", "tcp://10.0.0.1:80"];
        assert_eq!(port(&service_link, Some("9000")), 9000);
        assert_eq!(port(&service_link, None), 8080);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let flags = ["--max-queue", "0", "--max-texts", "5", "--log", "a=b=c"];
        let error = config(&flags, Some("http")).unwrap_err();
        let text = error.to_string();
        for flag in ["--max-queue", "--max-texts", "PORT", "--log"] {
            assert!(text.contains(flag), "{flag} is missing from:\n{text}");
        }
        assert_eq!(error.0.len(), 4);
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
}
