//! A link to one HTTP server, whose connection is kept from one `GET` to the next.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Scheme;
use axum::http::{StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use intentd_transport::{ClientError, ClientResponse, HttpClient, Lookup, ResponseLimits};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::endpoint::{Endpoint, RESOLVE_TIMEOUT, Resolution, Resolver};

/// Most bytes of a response body. That of a replica has a few hundred, that of a query one number.
const BODY_MAX: usize = 64 << 10;

/// The server at the other end of a link.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// A replica.
    Address(SocketAddr),
    /// A server by its name, which is resolved for each new connection.
    Host {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Whether to use TLS, with the authorities that the system trusts.
        is_tls: bool,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// There is no connection.
    #[error("{0}")]
    Connect(String),
    /// The connection was refused.
    #[error("{0}")]
    Refused(String),
    /// The time was over.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The response is not usable.
    #[error("{0}")]
    Answer(String),
}

impl LinkError {
    /// The `kind` label of `intentd_scaler_poll_failures_total`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Refused(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Answer(_) => "answer",
        }
    }
}

impl From<ClientError> for LinkError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connection(why) => Self::Connect(why),
            ClientError::Refused(why) => Self::Refused(why),
            ClientError::Timeout(time) => Self::Timeout(time),
            ClientError::TooLarge(_) => Self::Answer(error.to_string()),
        }
    }
}

/// Sends requests to one peer, one at a time.
#[derive(Debug)]
pub(super) struct Link {
    /// Scheme and authority of every request.
    origin: String,
    /// `None` until the first request, and while the system trusts no authority.
    client: Option<HttpClient>,
    peer: Peer,
}

impl Link {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            origin: peer.origin(),
            client: None,
            peer,
        }
    }

    /// Sends `GET path` and returns the body of a response with status 200, within `timeout`.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub(super) async fn get(&mut self, path: &str, timeout: Duration) -> Result<Bytes, LinkError> {
        let client = match &self.client {
            Some(client) => client,
            None => self
                .client
                .insert(self.peer.client().map_err(LinkError::Connect)?),
        };
        let request = hyper::Request::get(format!("{}{path}", self.origin))
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("intentd/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::default())
            .map_err(|error| LinkError::Answer(error.to_string()))?;
        let deadline = Instant::now() + timeout;
        let limits = || ResponseLimits {
            time: deadline.saturating_duration_since(Instant::now()),
            bytes: BODY_MAX,
        };
        let response = match whole(client.send(request.clone(), limits()).await) {
            // The server may have closed a kept connection just then.
            Err(ClientError::Connection(_)) => whole(client.send(request, limits()).await),
            response => response,
        };
        let (status, body) = response.map_err(|error| match error {
            // Names the caller's limit, not what was left of it.
            ClientError::Timeout(_) => LinkError::Timeout(timeout),
            error => error.into(),
        })?;
        if status != StatusCode::OK {
            return Err(LinkError::Answer(format!("HTTP status {status}")));
        }
        Ok(body)
    }
}

/// The status and the body, if all of the response arrived.
fn whole(
    response: Result<ClientResponse, ClientError>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let ClientResponse { head, body } = response?;
    Ok((head.status, body?))
}

impl Peer {
    fn origin(&self) -> String {
        match self {
            Self::Address(address) => format!("http://{address}"),
            Self::Host { host, port, is_tls } => {
                let scheme = if *is_tls { "https" } else { "http" };
                format!("{scheme}://{}", Endpoint::of(host, *port))
            }
        }
    }

    fn client(&self) -> Result<HttpClient, String> {
        match self {
            Self::Address(_) => HttpClient::new(Some(&Scheme::HTTP), 1),
            Self::Host { host, port, is_tls } => {
                let scheme = if *is_tls { Scheme::HTTPS } else { Scheme::HTTP };
                let resolver = Resolver::new(Endpoint::of(host, *port));
                HttpClient::with_lookup(Some(&scheme), 1, one_lookup_at_a_time(resolver))
            }
        }
    }
}

/// One lookup runs at a time, so that a DNS server that never answers takes one thread.
fn one_lookup_at_a_time(resolver: Resolver) -> Lookup {
    let resolver = Arc::new(Mutex::new(resolver));
    Arc::new(move |_| {
        let resolver = Arc::clone(&resolver);
        Box::pin(async move {
            match resolver.lock().await.resolve(RESOLVE_TIMEOUT).await {
                Resolution::Addresses(found) if found.is_empty() => {
                    Err(io::Error::other("the name has no address"))
                }
                Resolution::Addresses(found) => Ok(found),
                Resolution::Failed(why) => Err(io::Error::other(why)),
            }
        })
    })
}
