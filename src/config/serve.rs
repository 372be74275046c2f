//! The flags of `intentd serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{AdminPort, KafkaSourceArgs, MainPort, ModelArgs, SurfaceArgs, span};
use crate::autoscale::Trend;
use crate::autoscale::orca::OrcaMode;
use crate::trace::Endpoint;

/// The flags of `intentd serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// TOML file with settings: flags without their dashes, like max-texts = 16. Flags and
    /// environment win over it.
    #[arg(long, env = "INTENTD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings in force and where each comes from, as such a file, and end.
    #[arg(
        long,
        env = "INTENTD_PRINT_CONFIG",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub print_config: bool,
    /// Which model runs where.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// How much is taken on.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What those who ask have to know.
    #[command(flatten)]
    pub surface: SurfaceArgs,
    /// Which topics of Kafka are read.
    #[command(flatten)]
    pub kafka: KafkaSourceArgs,
    /// What connections may do.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// What autoscalers and load balancers are told.
    #[command(flatten)]
    pub hints: HintArgs,
    /// When the engine or the process ends.
    #[command(flatten)]
    pub end: EndArgs,
    /// Where requests are reported.
    #[command(flatten)]
    pub trace: TraceArgs,
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

/// Where to listen, and who may ask.
#[derive(Debug, Clone, clap::Args)]
pub struct ListenArgs {
    /// Address to listen on.
    #[arg(
        long,
        env = "INTENTD_HOST",
        value_name = "IP",
        default_value = "0.0.0.0"
    )]
    pub host: IpAddr,
    /// Port for predictions; also set by PORT. 0 picks a free one, "off" is for --unix-socket alone
    /// [default: 8080].
    #[arg(long, env = "INTENTD_PORT", value_name = "PORT")]
    pub port: Option<MainPort>,
    /// Port for operators (/metrics, /autoscaling, /healthz, /readyz, /reload): a number, 0 for a free one, or
    /// "off".
    #[arg(
        long,
        env = "INTENTD_ADMIN_PORT",
        value_name = "PORT",
        default_value = "9100"
    )]
    pub admin_port: AdminPort,
    /// Unix socket on which predictions are served as well.
    #[arg(long, env = "INTENTD_UNIX_SOCKET", value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
    /// PEM file with the certificates for TLS on --port; read again when it changes.
    #[arg(long, env = "INTENTD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key for TLS.
    #[arg(long, env = "INTENTD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File of keys, one a line, of which a request for predictions must carry one (Authorization:
    /// Bearer KEY); read again when it changes.
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

/// How much is taken on at once.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// Time within which requests should be answered: what would take longer is refused with 429.
    /// "off" for none.
    #[arg(
        long,
        env = "INTENTD_SLO",
        value_name = "TIME",
        default_value = "100ms",
        value_parser = span::parse
    )]
    pub slo: Duration,
    /// Time after which a request is given up with 504; clients may ask for less
    /// (x-request-timeout-ms). "off" for none.
    #[arg(
        long,
        env = "INTENTD_REQUEST_TIMEOUT",
        value_name = "TIME",
        default_value = "30s",
        value_parser = span::parse
    )]
    pub request_timeout: Duration,
    /// Requests in flight at once; one more is refused with 429 [default: by the measured capacity].
    #[arg(long, env = "INTENTD_MAX_CONCURRENCY", value_name = "N")]
    pub max_concurrency: Option<usize>,
    /// Texts that may wait for the engine; one more is refused with 429 [default: by the measured
    /// capacity].
    #[arg(long, env = "INTENTD_MAX_QUEUE", value_name = "N")]
    pub max_queue: Option<usize>,
    /// Percentage of the queue that requests of several texts may take.
    #[arg(
        long,
        env = "INTENTD_MAX_LIST_SHARE",
        value_name = "PERCENT",
        default_value = "50"
    )]
    pub max_list_share: usize,
    /// Texts in one request; a longer list is refused with 422; at most 32768 [default: 256 or --max-queue].
    #[arg(long, env = "INTENTD_MAX_TEXTS", value_name = "N")]
    pub max_texts: Option<usize>,
    /// Tokens in one batch, where a quarter of --slo leaves time for so many.
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
    /// Bytes of all bodies in memory; a request beyond is refused with 429.
    #[arg(
        long,
        env = "INTENTD_MAX_BODY_MEMORY",
        value_name = "BYTES",
        default_value = "268435456"
    )]
    pub max_body_memory: usize,
}

/// What connections may do.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectionArgs {
    /// Connections open at once, as far as there are file descriptors; one more is closed with 503
    /// [default: 16384].
    #[arg(long, env = "INTENTD_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Requests under way at once on one HTTP/2 connection.
    #[arg(
        long,
        env = "INTENTD_MAX_STREAMS",
        value_name = "N",
        default_value = "256"
    )]
    pub max_streams: u32,
    /// Bytes of a request's line and headers; more are refused with 431.
    #[arg(
        long,
        env = "INTENTD_MAX_HEADER_BYTES",
        value_name = "BYTES",
        default_value = "65536"
    )]
    pub max_header_bytes: usize,
    /// Time for a request's headers to arrive before the connection is closed.
    #[arg(
        long,
        env = "INTENTD_HEADER_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = span::parse
    )]
    pub header_timeout: Duration,
    /// Time for a request's body to arrive; one that takes longer is refused with 408.
    #[arg(
        long,
        env = "INTENTD_BODY_TIMEOUT",
        value_name = "TIME",
        default_value = "20s",
        value_parser = span::parse
    )]
    pub body_timeout: Duration,
    /// Time that a connection may stay open without a request.
    #[arg(
        long,
        env = "INTENTD_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "120s",
        value_parser = span::parse
    )]
    pub idle_timeout: Duration,
}

/// What autoscalers and load balancers are told.
#[derive(Debug, Clone, clap::Args)]
pub struct HintArgs {
    /// Percentage of its capacity that a replica is to use: demand is what is offered by that.
    #[arg(
        long,
        env = "INTENTD_TARGET_UTILIZATION",
        value_name = "PERCENT",
        default_value = "80"
    )]
    pub target_utilization: f64,
    /// Time within which replicas that are added for a backlog are to work it off.
    #[arg(
        long,
        env = "INTENTD_BACKLOG_DRAIN",
        value_name = "TIME",
        default_value = "30s",
        value_parser = span::parse_limit
    )]
    pub backlog_drain: Duration,
    /// How far ahead demand follows a rising load: a time, "startup" for as long as this server took to
    /// start, or "off".
    #[arg(
        long,
        env = "INTENTD_TREND",
        value_name = "TIME",
        default_value = "off",
        value_parser = trend
    )]
    pub trend: Trend,
    /// Whether a loaded model is measured before it serves, and what requests cost beside it: some 100 to 300
    /// ms.
    #[arg(
        long,
        env = "INTENTD_CALIBRATION",
        value_name = "BOOL",
        default_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub calibration: bool,
    /// File of `intentd profile --json`: the model is not measured at the start but taken to be as fast
    /// as it says, which a batch or two check.
    #[arg(long, env = "INTENTD_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// When answers carry a load report for load balancers (ORCA, header endpoint-load-metrics).
    #[arg(long, env = "INTENTD_ORCA", value_enum, default_value = "on-request")]
    pub orca: OrcaMode,
    /// Adds metrics under the names of Triton's that inference gateways read.
    #[arg(
        long,
        env = "INTENTD_TRITON_METRICS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub triton_metrics: bool,
    /// Serves /metrics and /autoscaling on --port as well.
    #[arg(
        long,
        env = "INTENTD_HINTS_ON_MAIN_PORT",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub hints_on_main_port: bool,
}

fn trend(text: &str) -> Result<Trend, String> {
    if text == "startup" {
        return Ok(Trend::Startup);
    }
    match span::parse(text) {
        Ok(time) if time.is_zero() => Ok(Trend::Off),
        Ok(time) => Ok(Trend::Seconds(time.as_secs_f64())),
        Err(_) => Err("expected a time such as 30s or 2m, \"startup\" or \"off\"".to_owned()),
    }
}

/// When the engine or the process ends.
#[derive(Debug, Clone, clap::Args)]
pub struct EndArgs {
    /// Batches that may fail one after the other before /readyz answers 503.
    #[arg(
        long,
        env = "INTENTD_ENGINE_FAILURES",
        value_name = "N",
        default_value = "5"
    )]
    pub engine_failures: u32,
    /// Time after which a GPU that does not come back is given up, and a CPU that does not is reported;
    /// "off" waits for ever.
    #[arg(
        long,
        env = "INTENTD_ENGINE_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = span::parse
    )]
    pub engine_timeout: Duration,
    /// Time between SIGTERM, when /readyz turns 503, and the closing of the ports [default: 5s, off
    /// under Knative].
    #[arg(
        long,
        env = "INTENTD_LAME_DUCK",
        value_name = "TIME",
        value_parser = span::parse
    )]
    pub lame_duck: Option<Duration>,
    /// Time from SIGTERM to the end, whatever is unanswered then.
    #[arg(
        long,
        env = "INTENTD_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "25s",
        value_parser = span::parse_limit
    )]
    pub drain_timeout: Duration,
}

/// Where requests are reported.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// OpenTelemetry collector that gets a span for requests (OTLP over HTTP, JSON), like
    /// http://localhost:4318.
    ///
    /// A name and a password before the host, http://name:password@host, are sent as basic
    /// authentication.
    #[arg(
        long,
        env = "INTENTD_OTLP_ENDPOINT",
        value_name = "URL",
        // It may hold a password.
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
    /// Share of the requests without a traceparent for which spans are sent, from 0 to 1.
    #[arg(
        long,
        env = "INTENTD_OTLP_SAMPLE",
        value_name = "SHARE",
        default_value = "0.01"
    )]
    pub otlp_sample: f64,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text a message.
    Text,
    /// One JSON object a message.
    Json,
}
