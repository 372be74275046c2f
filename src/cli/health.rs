//! `intentd health`: asks a server on this machine for its health, for containers without a shell or curl.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::failure::Failure;
use super::local_server::{self, ServerFile};
use crate::config::{MainPort, Platform, main_port, parse_host};

/// The flags of `intentd health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// IP address or name of the server [default: 127.0.0.1].
    #[arg(long, env = "INTENTD_HOST", value_name = "HOST", value_parser = parse_host)]
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

/// Succeeds when the server is healthy, else fails with its answer.
pub(super) fn run(args: &HealthArgs) -> Result<(), Failure> {
    let variable = Platform::from_environment().port;
    let file = ServerFile::read(args.config.as_deref())?;
    let port = match (args.port, file.text("port")) {
        (None, Some(text)) => Some(text.parse().map_err(Failure::usage)?),
        (port, _) => port,
    };
    let port = main_port(port, variable.as_deref()).map_err(Failure::usage)?;
    let port = port.ok_or_else(|| {
        Failure::usage("--port: expected a port to ask, for example that for operators (9100)")
    })?;
    let host = match (args.host, file.text("host")) {
        (Some(host), _) => host,
        (None, Some(text)) => parse_host(&text).map_err(Failure::usage)?,
        (None, None) => Ipv4Addr::LOCALHOST.into(),
    };
    let path = if args.live { "/healthz" } else { "/readyz" };
    let timeout = Duration::from_secs(args.timeout);
    let address = local_server::address(host, port);
    local_server::get(address, path, timeout).map(drop)
}
