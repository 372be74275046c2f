//! A connection to one HTTP server, kept open from one `GET` to the next.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::endpoint::{Endpoint, RESOLVE_TIMEOUT, Resolution, Resolver};

/// Most bytes of a response body. That of a replica has a few hundred, that of a query one number.
const BODY_MAX: usize = 64 << 10;

/// Size of the read buffer, and most bytes of a response head.
const BUFFER: usize = 16 << 10;

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

/// Sends requests to one peer, one at a time.
#[derive(Debug)]
pub(super) struct Link {
    peer: Peer,
    /// Resolves the peer's name, if it has one.
    resolver: Option<Resolver>,
    open: Option<OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for OpenConnection {
    /// Ends the driver, which would live on with a server that never ends its response.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    pub(super) fn new(peer: Peer) -> Self {
        let resolver = match &peer {
            Peer::Address(_) => None,
            Peer::Host { host, port, .. } => Some(Resolver::new(Endpoint::of(host, *port))),
        };
        Self {
            peer,
            resolver,
            open: None,
        }
    }

    /// Sends `GET path` and returns the body of a response with status 200, within `timeout`.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub(super) async fn get(&mut self, path: &str, timeout: Duration) -> Result<Bytes, LinkError> {
        let answer = tokio::time::timeout(timeout, self.ask(path)).await;
        answer.unwrap_or(Err(LinkError::Timeout(timeout)))
    }

    async fn ask(&mut self, path: &str) -> Result<Bytes, LinkError> {
        // Taken, so that a connection whose request is cancelled is not used again.
        if let Some(mut open) = self.open.take()
            && open.sender.ready().await.is_ok()
        {
            match self.exchange(&mut open, path).await {
                // The server may have closed an idle connection, so a new one is tried.
                Err(LinkError::Connect(_)) => {}
                answer => {
                    self.open = Some(open);
                    return answer;
                }
            }
        }
        let mut open = self.connect().await?;
        let answer = self.exchange(&mut open, path).await?;
        self.open = Some(open);
        Ok(answer)
    }

    async fn exchange(&self, open: &mut OpenConnection, path: &str) -> Result<Bytes, LinkError> {
        let request = hyper::Request::get(path)
            .header(header::HOST, self.peer.authority())
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("intentd/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::new())
            .map_err(|error| LinkError::Answer(error.to_string()))?;
        let sent = open.sender.send_request(request).await;
        let answer = sent.map_err(|error| LinkError::Connect(error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                LinkError::Answer(format!("an answer of more than {BODY_MAX} bytes"))
            } else {
                LinkError::Connect(error.to_string())
            }
        })?;
        if status != StatusCode::OK {
            return Err(LinkError::Answer(format!("HTTP status {status}")));
        }
        Ok(body.to_bytes())
    }

    /// Resolves the peer's name. One lookup runs at a time, so that a DNS server that never answers takes one
    /// thread.
    async fn addresses(&mut self) -> Result<Vec<SocketAddr>, LinkError> {
        let Some(resolver) = &mut self.resolver else {
            return Ok(Vec::new());
        };
        match resolver.resolve(RESOLVE_TIMEOUT).await {
            Resolution::Addresses(addresses) => Ok(addresses),
            Resolution::Failed(why) => Err(LinkError::Connect(why)),
        }
    }

    async fn connect(&mut self) -> Result<OpenConnection, LinkError> {
        let failed = |error: std::io::Error| LinkError::Connect(error.to_string());
        let (host, is_tls) = match &self.peer {
            Peer::Address(address) => return open(reach(&[*address]).await?).await,
            Peer::Host { host, is_tls, .. } => (host.clone(), *is_tls),
        };
        let stream = reach(&self.addresses().await?).await?;
        if !is_tls {
            return open(stream).await;
        }
        let name = ServerName::try_from(host);
        let name = name.map_err(|error| LinkError::Connect(error.to_string()))?;
        let connector = TlsConnector::from(tls().map_err(LinkError::Connect)?);
        open(connector.connect(name, stream).await.map_err(failed)?).await
    }
}

/// Connects to the first of the addresses that accepts.
async fn reach(addresses: &[SocketAddr]) -> Result<TcpStream, LinkError> {
    let mut last = LinkError::Connect("the name has no address".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                last = LinkError::Refused(error.to_string());
            }
            Err(error) => last = LinkError::Connect(error.to_string()),
        }
    }
    Err(last)
}

impl Peer {
    fn authority(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Host { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Host { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

async fn open<S>(stream: S) -> Result<OpenConnection, LinkError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new();
    builder.max_buf_size(BUFFER);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| LinkError::Connect(error.to_string()))?;
    let driver = tokio::spawn(async move {
        // The pending request gets the error.
        let _ = connection.await;
    });
    Ok(OpenConnection { sender, driver })
}

/// TLS with the authorities that the system trusts. They are read on first use: most scalers need none, and
/// that many certificates take memory.
fn tls() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("the system trusts no authority (set SSL_CERT_FILE)".to_owned());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
