//! The port in front of the mock cluster: TLS, a login, and then bytes handed on as they come.
//!
//! It runs on a thread and a runtime of its own, so that it serves whether its owner has a runtime or
//! blocks. Bounds: [`CONNECTIONS_MAX`] connections, each with [`LOGIN_WITHIN`] to log in.

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
use login::Verdict;
use sasl::Credentials;

/// Connections at a time; more wait to be taken.
const CONNECTIONS_MAX: usize = 1_000;

/// How long a client has for TLS, and then for its login.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

/// How long the gate takes no connections after one could not be taken.
const PAUSE: Duration = Duration::from_millis(50);

/// Ports that are tried until one is free under both addresses of this machine.
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
    /// The name that the gate's certificate is for.
    pub(crate) const HOST: &str = "localhost";

    /// Opens a gate in front of the broker at `behind`.
    pub(crate) fn open(gate: &Gate, behind: SocketAddr) -> Result<Self, BrokerError> {
        let authority = gate
            .has_tls()
            .then(|| Authority::new(Self::HOST))
            .transpose()?;
        let refused = Arc::new(AtomicU64::new(0));
        let door = Door {
            behind,
            tls: authority
                .as_ref()
                .map(|authority| authority.acceptor.clone()),
            login: gate.login().map(Credentials::new).transpose()?,
            refused: Arc::clone(&refused),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let (port, listeners) = bind()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let name = std::thread::Builder::new().name("gate".to_owned());
        // The runtime ends with the thread, and with it all connections.
        let thread = name.spawn(move || runtime.block_on(serve(door, listeners, stopped)))?;
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
            // A panic in it has been printed, and here is nobody to tell.
            let _ = thread.join();
        }
    }
}

/// The same free port under each address that `localhost` may stand for: a client that tried the
/// other one first would wait before it tries again.
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

async fn serve(door: Door, listeners: Vec<StdListener>, stopped: oneshot::Receiver<()>) {
    let door = Arc::new(door);
    for listener in listeners {
        // It only registers a socket that has been checked.
        let listener = TcpListener::from_std(listener).expect("a listener that does not block");
        tokio::spawn(accept(Arc::clone(&door), listener));
    }
    // Nothing is ever sent: its other end is dropped.
    let _ = stopped.await;
}

async fn accept(door: Arc<Door>, listener: TcpListener) {
    loop {
        let room = Arc::clone(&door.room).acquire_owned().await;
        match listener.accept().await {
            Ok((client, _)) => {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    // Clients come and go, some of them badly: that is what tests are for.
                    let _ = door.meet(client).await;
                    drop(room);
                });
            }
            // No more files, or a client that is gone again.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What every connection needs.
struct Door {
    behind: SocketAddr,
    tls: Option<TlsAcceptor>,
    login: Option<Credentials>,
    refused: Arc<AtomicU64>,
    room: Arc<Semaphore>,
}

impl Door {
    async fn meet(&self, client: TcpStream) -> io::Result<()> {
        // First, so that a client of a broker that is down is told at once.
        let broker = TcpStream::connect(self.behind).await?;
        broker.set_nodelay(true)?;
        client.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => {
                let client = timeout(LOGIN_WITHIN, tls.accept(client)).await??;
                self.guide(client, broker).await
            }
            None => self.guide(client, broker).await,
        }
    }

    /// Hears who the client is and hands it on.
    async fn guide<C>(&self, mut client: C, mut broker: TcpStream) -> io::Result<()>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(credentials) = &self.login {
            let conversation = login::converse(&mut client, &mut broker, credentials);
            match timeout(LOGIN_WITHIN, conversation).await?? {
                Verdict::Welcome => {}
                Verdict::Refused => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return client.shutdown().await;
                }
            }
        }
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_broker, mut to_broker) = broker.split();
        // Kafka's connections never end on one side only.
        let ended = tokio::select! {
            ended = copy(&mut from_client, &mut to_broker) => ended,
            ended = copy(&mut from_broker, &mut to_client) => ended,
        };
        to_client.shutdown().await?;
        ended.map(drop)
    }
}
