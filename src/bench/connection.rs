//! Connections to a target: opened when they are needed, opened again when they break.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use super::answer::label_of;
use super::measured::Outcome;
use super::target::{Prepared, Protocol, Target};

/// What requests carry.
pub(super) type Body = Full<Bytes>;

/// An answer that is longer than this is not one to a text.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a target is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    addresses: Arc<[SocketAddr]>,
    protocol: Protocol,
    label: Option<Arc<str>>,
}

impl Address {
    /// Looks the host up.
    pub(super) async fn of(target: &Target) -> Result<Self, String> {
        let authority = target.authority()?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses: Arc<[SocketAddr]> = found
            .map_err(|error| format!("{}: {host}: {error}", target.name))?
            .collect();
        Ok(Self {
            addresses,
            protocol: target.protocol,
            label: target.label.as_deref().map(Arc::from),
        })
    }

    async fn connect(&self) -> std::io::Result<TokioIo<TcpStream>> {
        let stream = TcpStream::connect(&*self.addresses).await?;
        // An answer must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }
}

/// One connection. In HTTP/1.1 a request has it alone; in HTTP/2 many share it.
#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    sender: Mutex<Option<Sender>>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    H2c(http2::SendRequest<Body>),
}

impl Sender {
    async fn open(address: &Address) -> std::io::Result<Self> {
        let io = address.connect().await?;
        match address.protocol {
            Protocol::Http1 => {
                let (sender, connection) =
                    http1::handshake(io).await.map_err(std::io::Error::other)?;
                // How it ended, the requests on it say.
                tokio::spawn(async { drop(connection.await) });
                Ok(Self::Http1(sender))
            }
            Protocol::H2c => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, io)
                    .await
                    .map_err(std::io::Error::other)?;
                tokio::spawn(async { drop(connection.await) });
                Ok(Self::H2c(sender))
            }
        }
    }

    async fn is_usable(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::H2c(sender) => !sender.is_closed(),
        }
    }
}

/// A status and a whole body.
type Answer = (StatusCode, Bytes);

/// The connection broke, before the request was sent or after it.
enum Failed {
    Before(String),
    After(String),
}

impl Connection {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            sender: Mutex::new(None),
        }
    }

    /// Opens it, if it is not open.
    pub(super) async fn open(&self) -> std::io::Result<()> {
        self.usable().await.map(drop)
    }

    async fn usable(&self) -> std::io::Result<MutexGuard<'_, Option<Sender>>> {
        let mut sender = self.sender.lock().await;
        let usable = match &mut *sender {
            Some(open) => open.is_usable().await,
            None => false,
        };
        if !usable {
            *sender = None;
            *sender = Some(Sender::open(&self.address).await?);
        }
        Ok(sender)
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn ask(&self, request: &Prepared, expected: Option<&str>) -> Outcome {
        let (status, body) = match self.exchange(request).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Failed::Before(reason) | Failed::After(reason))) => {
                return Outcome::Broken(reason);
            }
            Err(error) => return Outcome::Unconnected(error.to_string()),
        };
        if !status.is_success() {
            return Outcome::Status(status.as_u16());
        }
        let right = expected.is_none_or(|expected| {
            let found = label_of(&body, self.address.label.as_deref());
            found.as_deref() == Some(expected)
        });
        match right {
            true => Outcome::Answered,
            false => Outcome::Wrong,
        }
    }

    /// The label that a text gets.
    pub(super) async fn label(&self, request: &Prepared) -> Result<String, String> {
        let exchanged = self.exchange(request).await;
        let (status, body) = exchanged
            .map_err(|error| error.to_string())?
            .map_err(|(Failed::Before(reason) | Failed::After(reason))| reason)?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        label_of(&body, self.address.label.as_deref()).ok_or_else(|| {
            "no label in its answer; \"label\" in the target's file says where it is".to_owned()
        })
    }

    /// Status and body, or how the connection broke; the outer error is that there is none.
    async fn exchange(&self, request: &Prepared) -> std::io::Result<Result<Answer, Failed>> {
        let answer = self.try_exchange(request).await;
        match answer {
            // The server had closed the connection while it was idle, as it may.
            Ok(Err(Failed::Before(_))) => self.try_exchange(request).await,
            answer => answer,
        }
    }

    async fn try_exchange(&self, request: &Prepared) -> std::io::Result<Result<Answer, Failed>> {
        let mut sender = self.usable().await?;
        Ok(match &mut *sender {
            // Nobody else uses the connection until the answer has been read.
            Some(Sender::Http1(open)) => read(open.send_request(request.request()).await).await,
            Some(Sender::H2c(open)) => {
                let mut open = open.clone();
                drop(sender);
                read(open.send_request(request.request()).await).await
            }
            None => Err(Failed::Before("no connection".to_owned())),
        })
    }
}

async fn read(response: hyper::Result<Response<Incoming>>) -> Result<Answer, Failed> {
    let response = response.map_err(|error| match error.is_canceled() {
        true => Failed::Before(error.to_string()),
        false => Failed::After(error.to_string()),
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    let broke = |error: Box<dyn std::error::Error + Send + Sync>| Failed::After(error.to_string());
    Ok((status, body.await.map_err(broke)?.to_bytes()))
}
