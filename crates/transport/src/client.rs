//! The HTTP client of this program: for replicas and Prometheus, the collector of traces, the sink of events, and a
//! server's own health. (`intentd bench` has its own, which measures.)
//!
//! Takes a request, gives the response, bounded in size and time. Connections are kept for the next request.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::response::Parts;
use axum::http::{Request, uri::Scheme};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::{Client, Error as SendError};
use hyper_util::rt::TokioExecutor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

/// Size of the read buffer of a connection, and most bytes of a response head.
const BUFFER: usize = 16 << 10;

/// Resolves a host's name to its addresses. The port is replaced.
pub type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Why a request has no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// The connection was refused: nothing listens there.
    #[error("{0}")]
    Refused(String),
    /// The time was over.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The response is larger than its bound, in bytes.
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
}

/// The bounds on a response.
#[derive(Debug, Clone, Copy)]
pub struct ResponseLimits {
    /// Time from the request to the end of the response.
    pub time: Duration,
    /// Most bytes of the body.
    pub bytes: usize,
}

/// A response. Its body may have failed where its head arrived.
#[derive(Debug)]
pub struct ClientResponse {
    /// Status and headers.
    pub head: Parts,
    /// The whole body.
    pub body: Result<Bytes, ClientError>,
}

/// Sends requests; connections are shared by its clones.
#[derive(Debug, Clone)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector<NameResolver>>, Full<Bytes>>);

impl HttpClient {
    /// A client for servers of this scheme, which resolves names as the system does and keeps at most `idle`
    /// connections to each.
    ///
    /// # Errors
    /// When the scheme is `https` and the system trusts no certificate authority.
    pub fn new(scheme: Option<&Scheme>, idle: usize) -> Result<Self, String> {
        Self::with_resolver(scheme, idle, NameResolver::System(GaiResolver::new()))
    }

    /// As [`new`](Self::new), with another way to resolve names.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_lookup(
        scheme: Option<&Scheme>,
        idle: usize,
        lookup: Lookup,
    ) -> Result<Self, String> {
        Self::with_resolver(scheme, idle, NameResolver::Other(lookup))
    }

    fn with_resolver(
        scheme: Option<&Scheme>,
        idle: usize,
        resolver: NameResolver,
    ) -> Result<Self, String> {
        let tls = if scheme == Some(&Scheme::HTTPS) {
            system_authorities()?
        } else {
            Arc::clone(&NO_AUTHORITIES)
        };
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(idle)
            .http1_max_buf_size(BUFFER)
            .build(HttpsConnector::from((http, tls)));
        Ok(Self(client))
    }

    /// Sends a request, whose URI names the server.
    ///
    /// # Errors
    /// When no head of a response arrives within the limits.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limits: ResponseLimits,
    ) -> Result<ClientResponse, ClientError> {
        let ResponseLimits { time, bytes } = limits;
        let deadline = tokio::time::Instant::now() + time;
        let late = |_| ClientError::Timeout(time);
        let response = tokio::time::timeout_at(deadline, self.0.request(request)).await;
        let (head, body) = response
            .map_err(late)?
            .map_err(|error| of_send(&error))?
            .into_parts();
        let body = tokio::time::timeout_at(deadline, Limited::new(body, bytes).collect()).await;
        let body = body.map_err(late).and_then(|body| {
            body.map(|body| body.to_bytes()).map_err(|error| {
                if error.is::<LengthLimitError>() {
                    ClientError::TooLarge(bytes)
                } else {
                    ClientError::Connection(chain(&*error))
                }
            })
        });
        Ok(ClientResponse { head, body })
    }
}

/// How names are resolved.
#[derive(Clone)]
enum NameResolver {
    System(GaiResolver),
    Other(Lookup),
}

impl Service<Name> for NameResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        match self {
            Self::System(system) => {
                let found = system.call(name);
                Box::pin(async move { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
            }
            Self::Other(lookup) => {
                let found = lookup(name.as_str().to_owned());
                Box::pin(async move { Ok(found.await?.into_iter()) })
            }
        }
    }
}

/// For clients that use no TLS, so that the system need not have certificate authorities.
static NO_AUTHORITIES: LazyLock<Arc<ClientConfig>> =
    LazyLock::new(|| Arc::new(client_config(RootCertStore::empty())));

/// TLS with the authorities that the system trusts. They are read on first use: few processes need them, and that many
/// certificates take memory.
fn system_authorities() -> Result<Arc<ClientConfig>, String> {
    static FOUND: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(Arc::clone(found));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    // Not remembered: they may be installed later.
    if roots.is_empty() {
        return Err("the system trusts no certificate authority (set SSL_CERT_FILE)".to_owned());
    }
    Ok(Arc::clone(
        FOUND.get_or_init(|| Arc::new(client_config(roots))),
    ))
}

fn client_config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn of_send(error: &SendError) -> ClientError {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            return ClientError::Refused(error.to_string());
        }
        cause = error.source();
    }
    ClientError::Connection(chain(error))
}

/// An error and its chain of sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl std::fmt::Debug for NameResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System(_) => "System",
            Self::Other(_) => "Other",
        })
    }
}
