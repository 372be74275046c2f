//! `intentd health`: asks a server on this machine for its health, for containers without a shell or curl.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::failure::Failure;
use super::local_server;
use crate::config::{MainPort, Platform, main_port, toml_mistake};
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
    let host = match (args.host, in_file("host")) {
        (Some(host), _) => host,
        (None, Some(text)) => text.parse().map_err(Failure::usage)?,
        (None, None) => Ipv4Addr::LOCALHOST.into(),
    };
    let path = if args.live { "/healthz" } else { "/readyz" };
    let timeout = Duration::from_secs(args.timeout);
    let address = local_server::address(host, port);
    local_server::get(address, path, timeout).map(drop)
}
