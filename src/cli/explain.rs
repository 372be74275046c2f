//! `intentd explain`: why a server's demand is what it is, in words.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::failure::Failure;
use super::local_server::{self, ServerFile};
use crate::config::{AdminPort, parse_host};

/// The flags of `intentd explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// IP address or name of the server [default: 127.0.0.1].
    #[arg(long, env = "INTENTD_HOST", value_name = "HOST", value_parser = parse_host)]
    host: Option<IpAddr>,
    /// The server's port for operators [default: 9100].
    #[arg(long, env = "INTENTD_ADMIN_PORT", value_name = "PORT")]
    admin_port: Option<String>,
    /// The server's TOML file, for host and port where flags and environment give none.
    #[arg(long, env = "INTENTD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The port for operators unless it is set.
const ADMIN_PORT: &str = "9100";

/// Time for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The part of `/autoscaling` that is for people.
#[derive(Debug, Deserialize)]
struct Explained {
    explanation: Vec<String>,
}

/// Prints the explanation, a sentence a line.
pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let file = ServerFile::read(args.config.as_deref())?;
    let host = match (args.host, file.text("host")) {
        (Some(host), _) => host,
        (None, Some(text)) => parse_host(&text).map_err(Failure::usage)?,
        (None, None) => Ipv4Addr::LOCALHOST.into(),
    };
    let port = args.admin_port.clone().or_else(|| file.text("admin-port"));
    let port = port.unwrap_or_else(|| ADMIN_PORT.to_owned());
    let port = match port.parse() {
        Ok(AdminPort::Port(port)) if port > 0 => port,
        _ => {
            return Err(Failure::usage(format!(
                "--admin-port: expected the number of the server's port for operators, found {port}; a server without \
                 one cannot be asked"
            )));
        }
    };
    let address = local_server::address(host, port);
    let body = local_server::get(address, "/autoscaling", TIMEOUT)?;
    let Explained { explanation } = serde_json::from_slice(&body).map_err(|error| Failure {
        message: format!("http://{address}/autoscaling is not of this version of intentd: {error}"),
        code: 1,
    })?;
    let mut out = std::io::stdout().lock();
    for sentence in explanation {
        writeln!(out, "{sentence}")?;
    }
    Ok(())
}
