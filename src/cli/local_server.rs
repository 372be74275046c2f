//! Asks a server that runs on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::failure::Failure;
use crate::transport::{HttpClient, ResponseLimits};

/// Size of the longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where a server is reached that listens on `host`. One that listens on all addresses has the loopback address.
pub(super) fn address(host: IpAddr, port: u16) -> SocketAddr {
    let host = match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
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
