//! A server that runs on this machine: its settings file, its address, and what it answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::failure::Failure;
use crate::config::toml_mistake;
use crate::transport::{HttpClient, ResponseLimits};
use intentd_base::input;

/// Size of the longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The settings file of a server, for what flags and environment do not say.
pub(super) struct ServerFile(Option<toml::Table>);

impl ServerFile {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or is no TOML.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let wrong = |what: String| Failure::usage(format!("{}: {what} (--config)", path.display()));
        let text = input::read_text(path, input::SMALL);
        let text = text.map_err(|error| wrong(error.to_string()))?;
        let table = text.parse();
        let table = table.map_err(|error: toml::de::Error| wrong(toml_mistake(&text, &error)))?;
        Ok(Self(Some(table)))
    }

    /// A setting as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.as_ref()?.get(name).map(|value| match value {
            toml::Value::String(text) => text.clone(),
            value => value.to_string(),
        })
    }
}

/// Where a server is reached that listens on `host`. One that listens on all addresses is reached at the loopback address
/// of IPv4, which every machine has.
pub(super) fn address(host: IpAddr, port: u16) -> SocketAddr {
    if host.is_unspecified() {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    }
    SocketAddr::from((host, port))
}

/// The body of an answer with status 200 to `GET path`, within `time`.
///
/// # Errors
/// If there is no answer, or one with another status, of which the last line is shown.
pub(super) fn get(address: SocketAddr, path: &str, time: Duration) -> Result<Bytes, Failure> {
    let failed = |message: String| Failure { message, code: 1 };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (status, body) = runtime
        .block_on(ask(address, path, time))
        .map_err(|error| failed(format!("no answer from http://{address}{path}: {error}")))?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body);
    let text = text.lines().last().unwrap_or_default();
    Err(failed(format!(
        "http://{address}{path} answers {status}: {text}"
    )))
}

async fn ask(
    address: SocketAddr,
    path: &str,
    time: Duration,
) -> Result<(StatusCode, Bytes), String> {
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
    Ok((response.head.status, body))
}
