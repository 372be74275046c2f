//! The flags of `intentd serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::hints::HintArgs;
use super::host::parse_host;
use super::kafka::KafkaSourceArgs;
use super::logging::LogFormat;
use super::model::ModelArgs;
use super::ports::{AdminPort, MainPort};
use super::surface::SurfaceArgs;
use super::time::{self, TimeLimit};
use crate::trace::Endpoint;

/// Texts that a request may have unless a flag says otherwise.
const TEXTS_MAX: usize = 256;

/// The flags of `intentd serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// TOML file with settings. Its keys are flags without their dashes, such as max-texts = 16. Flags
    /// and environment variables override it.
    #[arg(long, env = "INTENTD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings in force as such a file, each with its source, and exit.
    #[arg(
        long,
        env = "INTENTD_PRINT_CONFIG",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub print_config: bool,
    /// The model and the engine that runs it.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The addresses to listen on.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// The limits on requests, queue and batches.
    #[command(flatten)]
    pub load: LoadArgs,
    /// The names that clients use.
    #[command(flatten)]
    pub surface: SurfaceArgs,
    /// The Kafka topics to read.
    #[command(flatten)]
    pub kafka: KafkaSourceArgs,
    /// The limits on connections.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The hints for autoscalers and load balancers.
    #[command(flatten)]
    pub hints: HintArgs,
    /// When the engine is given up and how the process shuts down.
    #[command(flatten)]
    pub end: EndArgs,
    /// The collector of traces.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Messages to log: error, warn, info, debug, trace, or a tracing filter.
    #[arg(
        long,
        env = "INTENTD_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// Format of the log.
    #[arg(long, env = "INTENTD_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// The addresses to listen on, and who may send requests.
#[derive(Debug, Clone, clap::Args)]
pub struct ListenArgs {
    /// IP address or name to listen on; :: is all addresses, those of IPv4 too.
    #[arg(
        long,
        env = "INTENTD_HOST",
        value_name = "HOST",
        default_value = "::",
        value_parser = parse_host
    )]
    pub host: IpAddr,
    /// Port for predictions; PORT sets it as well. 0 picks a free one, "off" needs --unix-socket
    /// [default: 8080].
    #[arg(long, env = "INTENTD_PORT", value_name = "PORT")]
    pub port: Option<MainPort>,
    /// Port for operators (/metrics, /autoscaling, /healthz, /readyz, /reload): a number, 0 for a free one,
    /// or "off".
    #[arg(
        long,
        env = "INTENTD_ADMIN_PORT",
        value_name = "PORT",
        default_value = "9100"
    )]
    pub admin_port: AdminPort,
    /// Unix socket that also serves predictions.
    #[arg(long, env = "INTENTD_UNIX_SOCKET", value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
    /// PEM file with the certificates for TLS on --port; reloaded when it changes.
    #[arg(long, env = "INTENTD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key for TLS.
    #[arg(long, env = "INTENTD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File with API keys, one on each line. Requests for predictions must carry one of them
    /// (Authorization: Bearer KEY). Reloaded when it changes.
    #[arg(long, env = "INTENTD_API_KEYS", value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// Origins whose pages may read answers (CORS), separated by commas; * for all.
    #[arg(
        long,
        env = "INTENTD_CORS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub cors_allow_origin: Vec<String>,
}

/// The limits on requests, queue and batches.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// Latency objective. A request that would take longer is refused with 429; "off" for no objective.
    #[arg(
        long,
        env = "INTENTD_SLO",
        value_name = "TIME",
        default_value = "100ms"
    )]
    pub slo: TimeLimit,
    /// Deadline of a request, which then fails with 504; clients may set a shorter one
    /// (x-request-timeout-ms). "off" for none.
    #[arg(
        long,
        env = "INTENTD_REQUEST_TIMEOUT",
        value_name = "TIME",
        default_value = "30s"
    )]
    pub request_timeout: TimeLimit,
    /// Requests in flight; more are refused with 429 [default: from the measured capacity].
    #[arg(long, env = "INTENTD_MAX_CONCURRENCY", value_name = "N")]
    pub max_concurrency: Option<usize>,
    /// Texts that may wait for the engine; more are refused with 429 [default: from the measured
    /// capacity].
    #[arg(long, env = "INTENTD_MAX_QUEUE", value_name = "N")]
    pub max_queue: Option<usize>,
    /// Percentage of the queue that requests with several texts may take.
    #[arg(
        long,
        env = "INTENTD_MAX_LIST_SHARE",
        value_name = "PERCENT",
        default_value = "50"
    )]
    pub max_list_share: usize,
    /// Texts in one request; a longer list is refused with 422. At most 32768 [default: 256 or --max-queue].
    #[arg(long, env = "INTENTD_MAX_TEXTS", value_name = "N")]
    pub max_texts: Option<usize>,
    /// Tokens in one batch. Batches stay smaller where this many would take more than a quarter of --slo.
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
        alias = "max-batch-requests",
        env = "INTENTD_MAX_BATCH_TEXTS",
        value_name = "N",
        default_value = "256"
    )]
    pub max_batch_texts: usize,
    /// Size of a request's body in bytes; a larger one is refused with 413.
    #[arg(
        long,
        env = "INTENTD_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "2097152"
    )]
    pub max_body_bytes: usize,
    /// Memory for the bodies of all requests, in bytes; requests beyond it are refused with 429.
    #[arg(
        long,
        env = "INTENTD_MAX_BODY_MEMORY",
        value_name = "BYTES",
        default_value = "268435456"
    )]
    pub max_body_memory: usize,
}

impl LoadArgs {
    /// Texts that a request may have.
    pub(super) fn texts_max(&self) -> usize {
        let default = || {
            self.max_queue
                .map_or(TEXTS_MAX, |queue| queue.min(TEXTS_MAX))
        };
        self.max_texts.unwrap_or_else(default)
    }
}

/// The limits on connections.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectionArgs {
    /// Open connections, if there are enough file descriptors; more are closed with 503 [default: 16384].
    #[arg(long, env = "INTENTD_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Requests in flight on one HTTP/2 connection.
    #[arg(
        long,
        env = "INTENTD_MAX_STREAMS",
        value_name = "N",
        default_value = "256"
    )]
    pub max_streams: u32,
    /// Size of a request's head, its request line and headers, in bytes; a larger one is refused with 431.
    #[arg(
        long,
        env = "INTENTD_MAX_HEADER_BYTES",
        value_name = "BYTES",
        default_value = "65536"
    )]
    pub max_header_bytes: usize,
    /// Time for a request's head to arrive; then the connection is closed. "off" for no limit.
    #[arg(
        long,
        env = "INTENTD_HEADER_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    pub header_timeout: TimeLimit,
    /// Time for a request's body to arrive; then the request is refused with 408. "off" for no limit.
    #[arg(
        long,
        env = "INTENTD_BODY_TIMEOUT",
        value_name = "TIME",
        default_value = "20s"
    )]
    pub body_timeout: TimeLimit,
    /// Time that a connection may stay open without a request. "off" for no limit.
    #[arg(
        long,
        env = "INTENTD_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "120s"
    )]
    pub idle_timeout: TimeLimit,
}

/// When the engine is given up and how the process shuts down.
#[derive(Debug, Clone, clap::Args)]
pub struct EndArgs {
    /// Consecutive batches that may fail before /readyz answers 503.
    #[arg(
        long,
        env = "INTENTD_ENGINE_FAILURES",
        value_name = "N",
        default_value = "5"
    )]
    pub engine_failures: u32,
    /// Time without progress after which a GPU is given up and a CPU engine is reported as stuck. "off" for
    /// no limit.
    #[arg(
        long,
        env = "INTENTD_ENGINE_TIMEOUT",
        value_name = "TIME",
        default_value = "60s"
    )]
    pub engine_timeout: TimeLimit,
    /// Time from SIGTERM, when /readyz turns 503, until the ports close [default: 5s].
    #[arg(
        long,
        env = "INTENTD_LAME_DUCK",
        value_name = "TIME",
        value_parser = time::parse_or_off
    )]
    pub lame_duck: Option<Duration>,
    /// Time from SIGTERM until the process exits, even with requests unanswered.
    #[arg(
        long,
        env = "INTENTD_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "25s",
        value_parser = time::parse
    )]
    pub drain_timeout: Duration,
}

/// The collector of traces.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// OpenTelemetry collector that receives spans of requests (OTLP over HTTP, JSON), such as
    /// http://localhost:4318 or https://host.
    ///
    /// A name and a password before the host, http://name:password@host, are sent as basic
    /// authentication.
    #[arg(
        long,
        env = "INTENTD_OTLP_ENDPOINT",
        value_name = "URL",
        // The value may contain a password.
        hide_env_values = true
    )]
    pub otlp_endpoint: Option<Endpoint>,
    /// Name of this service in its spans.
    #[arg(
        long,
        env = "INTENTD_OTLP_SERVICE_NAME",
        value_name = "NAME",
        default_value = "intentd"
    )]
    pub otlp_service_name: String,
    /// Share of the requests without a traceparent that get a span, from 0 to 1.
    #[arg(
        long,
        env = "INTENTD_OTLP_SAMPLE",
        value_name = "SHARE",
        default_value = "0.01"
    )]
    pub otlp_sample: f64,
}
