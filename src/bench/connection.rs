//! Connections to a target: opened when they are needed, opened again when they break.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::Response;
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
        let mut result = self.try_to_ask(request, expected).await;
        if let Ok(Err(Failed::Before(_))) = result {
            // The server had closed the connection while it was idle, as it may.
            result = self.try_to_ask(request, expected).await;
        }
        match result {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Failed::Before(reason) | Failed::After(reason))) => Outcome::Broken(reason),
            Err(error) => Outcome::Unconnected(error.to_string()),
        }
    }

    async fn try_to_ask(
        &self,
        request: &Prepared,
        expected: Option<&str>,
    ) -> std::io::Result<Result<Outcome, Failed>> {
        let mut sender = self.usable().await?;
        let failed = |error: hyper::Error| match error.is_canceled() {
            true => Failed::Before(error.to_string()),
            false => Failed::After(error.to_string()),
        };
        let answered = match &mut *sender {
            Some(Sender::Http1(open)) => {
                // Nobody else uses the connection until the answer has been read.
                match open.send_request(request.request()).await {
                    Ok(response) => self.read(response, expected).await,
                    Err(error) => Err(failed(error)),
                }
            }
            Some(Sender::H2c(open)) => {
                let mut open = open.clone();
                drop(sender);
                match open.send_request(request.request()).await {
                    Ok(response) => self.read(response, expected).await,
                    Err(error) => Err(failed(error)),
                }
            }
            None => Err(Failed::Before("no connection".to_owned())),
        };
        Ok(answered)
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        expected: Option<&str>,
    ) -> Result<Outcome, Failed> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body
            .await
            .map_err(|error| Failed::After(error.to_string()))?;
        if !status.is_success() {
            return Ok(Outcome::Status(status.as_u16()));
        }
        let right = expected.is_none_or(|expected| {
            let found = label_of(&body.to_bytes(), self.address.label.as_deref());
            found.as_deref() == Some(expected)
        });
        Ok(if right {
            Outcome::Answered
        } else {
            Outcome::Wrong
        })
    }

    /// The label that a text gets.
    pub(super) async fn label(&self, request: &Prepared) -> Result<String, String> {
        let mut sender = self.usable().await.map_err(|error| error.to_string())?;
        let response = match &mut *sender {
            Some(Sender::Http1(open)) => open.send_request(request.request()).await,
            Some(Sender::H2c(open)) => open.send_request(request.request()).await,
            None => return Err("no connection".to_owned()),
        };
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body.await.map_err(|error| error.to_string())?.to_bytes();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        label_of(&body, self.address.label.as_deref()).ok_or_else(|| {
            "no label in its answer; \"label\" in the target's file says where it is".to_owned()
        })
    }
}
