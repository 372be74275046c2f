//! The port in front of the mock cluster: TLS, a login, then bytes forwarded in both directions.
//!
//! It runs on a thread and a runtime of its own, so that it serves while its owner blocks. Bounds:
//! [`CONNECTIONS_MAX`] connections, each with [`LOGIN_WITHIN`] to log in.

mod authority;
mod frame;
mod login;
mod sasl;
mod scram;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::{BrokerError, Gate};
use authority::Authority;
use login::LoginOutcome;
use sasl::Credentials;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1_000;

/// Time of a client for its TLS handshake, and again for its login.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Attempts to find a port that is free on both loopback addresses.
const PORTS_TRIED: usize = 32;

/// A gate that is open until it is dropped.
pub(crate) struct OpenGate {
    port: u16,
    ca_pem: Option<String>,
    refused: Arc<AtomicU64>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OpenGate {
    /// The host name of the gate's certificate.
    pub(crate) const HOST: &str = "localhost";

    /// Opens a gate in front of the broker at `behind`.
    pub(crate) fn open(gate: &Gate, behind: SocketAddr) -> Result<Self, BrokerError> {
        let authority = gate
            .has_tls()
            .then(|| Authority::new(Self::HOST))
            .transpose()?;
        let refused = Arc::new(AtomicU64::new(0));
        let service = GateService {
            behind,
            tls: authority
                .as_ref()
                .map(|authority| authority.acceptor.clone()),
            login: gate.login().map(Credentials::new).transpose()?,
            refused: Arc::clone(&refused),
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let (port, listeners) = bind()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let name = std::thread::Builder::new().name("gate".to_owned());
        // The runtime ends with the thread, and with it all connections.
        let thread = name.spawn(move || runtime.block_on(serve(service, listeners, stopped)))?;
        Ok(Self {
            port,
            ca_pem: authority.map(|authority| authority.ca_pem),
            refused,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for OpenGate {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is no caller to report it to.
            let _ = thread.join();
        }
    }
}

/// Binds the same free port on each address of `localhost`. A client that tried an unbound one first would pause
/// before it tries the other.
fn bind() -> io::Result<(u16, Vec<StdListener>)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let first = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        match StdListener::bind((Ipv6Addr::LOCALHOST, port)) {
            Ok(second) => listeners.push(second),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < PORTS_TRIED => {
                continue;
            }
            // This machine has no IPv6.
            Err(_) => {}
        }
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        return Ok((port, listeners));
    }
}

async fn serve(service: GateService, listeners: Vec<StdListener>, stopped: oneshot::Receiver<()>) {
    let service = Arc::new(service);
    for listener in listeners {
        // This only registers the socket, which is not blocking.
        let listener = TcpListener::from_std(listener).expect("a listener that does not block");
        tokio::spawn(accept(Arc::clone(&service), listener));
    }
    // Nothing is ever sent; the sender is dropped.
    let _ = stopped.await;
}

async fn accept(service: Arc<GateService>, listener: TcpListener) {
    loop {
        let permit = Arc::clone(&service.permits).acquire_owned().await;
        match listener.accept().await {
            Ok((client, _)) => {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    // Errors of clients are expected in tests.
                    let _ = service.serve(client).await;
                    drop(permit);
                });
            }
            // No file descriptor is left, or the client has gone.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves the connections of a gate.
struct GateService {
    behind: SocketAddr,
    tls: Option<TlsAcceptor>,
    login: Option<Credentials>,
    refused: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
}

impl GateService {
    async fn serve(&self, client: TcpStream) -> io::Result<()> {
        // First, so that a client notices at once when the broker is down.
        let broker = TcpStream::connect(self.behind).await?;
        broker.set_nodelay(true)?;
        client.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => {
                let client = timeout(LOGIN_WITHIN, tls.accept(client)).await??;
                self.log_in_and_forward(client, broker).await
            }
            None => self.log_in_and_forward(client, broker).await,
        }
    }

    /// Runs the login, if there is one, then forwards bytes in both directions.
    async fn log_in_and_forward<C>(&self, mut client: C, mut broker: TcpStream) -> io::Result<()>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(credentials) = &self.login {
            let login = login::log_in(&mut client, &mut broker, credentials);
            match timeout(LOGIN_WITHIN, login).await?? {
                LoginOutcome::Accepted => {}
                LoginOutcome::Refused => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return client.shutdown().await;
                }
            }
        }
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_broker, mut to_broker) = broker.split();
        // A Kafka connection never ends on one side only.
        let ended = tokio::select! {
            ended = copy(&mut from_client, &mut to_broker) => ended,
            ended = copy(&mut from_broker, &mut to_client) => ended,
        };
        to_client.shutdown().await?;
        ended.map(drop)
    }
}
