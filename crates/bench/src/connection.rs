//! Connections to a target, opened on demand and reopened when they break.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use super::answer::label_of;
use super::measured::Outcome;
use super::request::{PreparedRequest, RequestBody};
use super::target::{Protocol, Target};

/// Largest response body that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A target's resolved addresses, and how to talk to it.
#[derive(Debug, Clone)]
pub(super) struct TargetAddress {
    addresses: Arc<[SocketAddr]>,
    protocol: Protocol,
    label: Option<Arc<str>>,
}

impl TargetAddress {
    /// Resolves the target's host.
    pub(super) async fn resolve(target: &Target) -> Result<Self, String> {
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
        // With Nagle's algorithm a request would wait for an earlier acknowledgement.
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }
}

/// One connection. HTTP/1.1 carries one request at a time; HTTP/2 carries many.
#[derive(Debug)]
pub(super) struct Connection {
    address: TargetAddress,
    sender: Mutex<Option<RequestSender>>,
}

#[derive(Debug)]
enum RequestSender {
    Http1(http1::SendRequest<RequestBody>),
    H2c(http2::SendRequest<RequestBody>),
}

impl RequestSender {
    async fn open(address: &TargetAddress) -> std::io::Result<Self> {
        let io = address.connect().await?;
        match address.protocol {
            Protocol::Http1 => {
                let (sender, connection) =
                    http1::handshake(io).await.map_err(std::io::Error::other)?;
                // Requests on the connection report how it ended.
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

/// Status and complete body of a response.
struct Received {
    status: StatusCode,
    body: Bytes,
}

/// Why an exchange on an open connection failed.
enum BrokenExchange {
    /// The connection broke before the request was sent.
    BeforeSend(String),
    /// The connection broke after the request was sent.
    AfterSend(String),
}

impl BrokenExchange {
    fn into_reason(self) -> String {
        let (Self::BeforeSend(reason) | Self::AfterSend(reason)) = self;
        reason
    }
}

/// The outcome of an exchange; the outer error means that no connection could be opened.
type Exchanged = std::io::Result<Result<Received, BrokenExchange>>;

impl Connection {
    pub(super) fn new(address: TargetAddress) -> Self {
        Self {
            address,
            sender: Mutex::new(None),
        }
    }

    /// Opens the connection unless it is open.
    pub(super) async fn open(&self) -> std::io::Result<()> {
        self.usable().await.map(drop)
    }

    async fn usable(&self) -> std::io::Result<MutexGuard<'_, Option<RequestSender>>> {
        let mut sender = self.sender.lock().await;
        let usable = match &mut *sender {
            Some(open) => open.is_usable().await,
            None => false,
        };
        if !usable {
            *sender = None;
            *sender = Some(RequestSender::open(&self.address).await?);
        }
        Ok(sender)
    }

    /// Sends a request, reads the complete response and compares its label with `expected`, if given.
    pub(super) async fn ask(&self, request: &PreparedRequest, expected: Option<&str>) -> Outcome {
        let received = match self.exchange(request).await {
            Ok(Ok(received)) => received,
            Ok(Err(broken)) => return Outcome::Broken(broken.into_reason()),
            Err(error) => return Outcome::Unconnected(error.to_string()),
        };
        if !received.status.is_success() {
            return Outcome::Status(received.status.as_u16());
        }
        let right = expected.is_none_or(|expected| {
            let found = label_of(&received.body, self.address.label.as_deref());
            found.as_deref() == Some(expected)
        });
        match right {
            true => Outcome::Answered,
            false => Outcome::Wrong,
        }
    }

    /// Sends a request and returns the label in its response.
    pub(super) async fn label(&self, request: &PreparedRequest) -> Result<String, String> {
        let exchanged = self.exchange(request).await;
        let Received { status, body } = exchanged
            .map_err(|error| error.to_string())?
            .map_err(BrokenExchange::into_reason)?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        label_of(&body, self.address.label.as_deref()).ok_or_else(|| {
            "no label in its answer; \"label\" in the target's file says where it is".to_owned()
        })
    }

    async fn exchange(&self, request: &PreparedRequest) -> Exchanged {
        match self.try_exchange(request).await {
            // A server may close an idle connection, so the request is tried once more.
            Ok(Err(BrokenExchange::BeforeSend(_))) => self.try_exchange(request).await,
            exchanged => exchanged,
        }
    }

    async fn try_exchange(&self, request: &PreparedRequest) -> Exchanged {
        let mut sender = self.usable().await?;
        Ok(match &mut *sender {
            // The lock is held until the response has been read: one request at a time.
            Some(RequestSender::Http1(open)) => {
                receive(open.send_request(request.to_http()).await).await
            }
            Some(RequestSender::H2c(open)) => {
                let mut open = open.clone();
                drop(sender);
                receive(open.send_request(request.to_http()).await).await
            }
            None => Err(BrokenExchange::BeforeSend("no connection".to_owned())),
        })
    }
}

async fn receive(response: hyper::Result<Response<Incoming>>) -> Result<Received, BrokenExchange> {
    let response = response.map_err(|error| match error.is_canceled() {
        true => BrokenExchange::BeforeSend(error.to_string()),
        false => BrokenExchange::AfterSend(error.to_string()),
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    let broke = |error: Box<dyn std::error::Error + Send + Sync>| {
        BrokenExchange::AfterSend(error.to_string())
    };
    let body = body.await.map_err(broke)?.to_bytes();
    Ok(Received { status, body })
}
