//! `intentd health`: asks a server on this machine for its health, for containers without a shell or curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Request, StatusCode};
use clap::Args;
use clap::builder::BoolishValueParser;
use http_body_util::Full;

use super::failure::Failure;
use crate::config::{MainPort, Platform, main_port, toml_mistake};
use crate::transport::{HttpClient, ResponseLimits};
use intentd_base::input;

/// The flags of `intentd health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// IP address of the server [default: 127.0.0.1].
    #[arg(long, env = "INTENTD_HOST", value_name = "IP")]
    host: Option<IpAddr>,
    /// Port of the server; PORT sets it as well. Where it has TLS, name the port for operators [default: 8080].
    #[arg(long, env = "INTENTD_PORT", value_name = "PORT")]
    port: Option<MainPort>,
    /// The server's TOML file, for host and port where flags and environment give none.
    #[arg(long, env = "INTENTD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask only whether the process is alive (/healthz), not whether it is ready (/readyz).
    #[arg(long, env = "INTENTD_LIVE", value_parser = BoolishValueParser::new())]
    live: bool,
    /// Time for the answer, in seconds.
    #[arg(
        long,
        env = "INTENTD_TIMEOUT",
        value_name = "SECONDS",
        default_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    timeout: u64,
}

/// Reads the TOML file.
fn read_settings(path: &Path) -> Result<toml::Table, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what} (--config)", path.display()));
    let text = input::read_text(path, input::SMALL).map_err(|error| wrong(error.to_string()))?;
    text.parse()
        .map_err(|error: toml::de::Error| wrong(toml_mistake(&text, &error)))
}

/// Size of the longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Succeeds when the server is healthy, else fails with its answer.
pub(super) fn run(args: &HealthArgs) -> Result<(), Failure> {
    let variable = Platform::from_environment().port;
    let file = args.config.as_deref().map(read_settings).transpose()?;
    let in_file = |name: &str| {
        file.as_ref()?.get(name).map(|value| match value {
            toml::Value::String(text) => text.clone(),
            value => value.to_string(),
        })
    };
    let port = match (args.port, in_file("port")) {
        (None, Some(text)) => Some(text.parse().map_err(Failure::usage)?),
        (port, _) => port,
    };
    let port = main_port(port, variable.as_deref()).map_err(Failure::usage)?;
    let port = port.ok_or_else(|| {
        Failure::usage("--port: expected a port to ask, for example that for operators (9100)")
    })?;
    // A server that listens on all addresses is reached by the loopback address.
    let host = match (args.host, in_file("host")) {
        (Some(host), _) => host,
        (None, Some(text)) => text.parse().map_err(Failure::usage)?,
        (None, None) => Ipv4Addr::LOCALHOST.into(),
    };
    let host = match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let path = if args.live { "/healthz" } else { "/readyz" };
    let timeout = Duration::from_secs(args.timeout);
    let address = SocketAddr::from((host, port));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(ask(address, path, timeout));
    let HealthAnswer { status, text } = asked.map_err(|error| Failure {
        message: format!("no answer from http://{address}{path}: {error}"),
        code: 1,
    })?;
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(Failure {
        message: format!("http://{address}{path} answers {status}: {text}"),
        code: 1,
    })
}

/// The answer of a server to a probe.
struct HealthAnswer {
    status: StatusCode,
    /// The last line of its body.
    text: String,
}

async fn ask(address: SocketAddr, path: &str, time: Duration) -> Result<HealthAnswer, String> {
    let request = Request::get(format!("http://{address}{path}")).body(Full::default());
    let request = request.map_err(|error| error.to_string())?;
    let limits = ResponseLimits {
        time,
        bytes: ANSWER_BYTES_MAX,
    };
    let client = HttpClient::new(None, 0)?;
    let response = client.send(request, limits).await;
    let response = response.map_err(|error| error.to_string())?;
    let body = response.body.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&body);
    Ok(HealthAnswer {
        status: response.head.status,
        text: text.lines().last().unwrap_or_default().to_owned(),
    })
}
