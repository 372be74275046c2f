//! `intentd explain`: why a server's demand is what it is, in words.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::failure::Failure;
use super::local_server;

/// The flags of `intentd explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// IP address of the server.
    #[arg(long, env = "INTENTD_HOST", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// The server's port for operators.
    #[arg(
        long,
        env = "INTENTD_ADMIN_PORT",
        value_name = "PORT",
        default_value = "9100",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    admin_port: u16,
}

/// Time for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The part of `/autoscaling` that is for people.
#[derive(Debug, Deserialize)]
struct Explained {
    explanation: Vec<String>,
}

/// Prints the explanation, a sentence a line.
pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let address = local_server::address(args.host, args.admin_port);
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
