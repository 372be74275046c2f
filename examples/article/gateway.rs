//! What stands between the relay and the replicas: each request goes to the next replica, and waits while
//! there is none. In a cluster that is Knative's activator or a Service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use axum::routing::post;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;

use super::Error;

/// How long a request waits for a replica.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// When, since 1970.
    pub(crate) at: Duration,
    /// Since it was written.
    pub(crate) latency: Duration,
    /// How often.
    pub(crate) times: u32,
}

/// The gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    replicas: watch::Sender<Vec<SocketAddr>>,
    next: AtomicUsize,
    waiting: AtomicUsize,
    refused: AtomicUsize,
    answered: Mutex<HashMap<String, Answered>>,
}

impl Gateway {
    /// Binds a free port and serves on it for as long as the runtime lives.
    pub(crate) async fn start() -> Result<Arc<Self>, Error> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let gateway = Arc::new(Self {
            address: listener.local_addr()?,
            client: Client::builder(TokioExecutor::new()).build_http(),
            replicas: watch::Sender::new(Vec::new()),
            next: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            answered: Mutex::default(),
        });
        let routes = Router::new()
            .route("/predict", post(forward))
            .with_state(Arc::clone(&gateway));
        tokio::spawn(async { axum::serve(listener, routes).await });
        Ok(gateway)
    }

    /// Where the relay delivers.
    pub(crate) fn sink(&self) -> String {
        format!("http://{}/predict", self.address)
    }

    /// Requests go to these from now on.
    pub(crate) fn route(&self, replicas: Vec<SocketAddr>) {
        self.replicas.send_replace(replicas);
    }

    /// Requests that wait for a replica.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests that a replica refused, to be tried again.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Messages that were answered, by their ids.
    pub(crate) fn messages(&self) -> MutexGuard<'_, HashMap<String, Answered>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many these are.
    pub(crate) fn answered(&self) -> usize {
        self.messages().len()
    }

    async fn replica(&self) -> Option<SocketAddr> {
        let mut replicas = self.replicas.subscribe();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let found = tokio::time::timeout(PATIENCE, replicas.wait_for(|all| !all.is_empty())).await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let all = found.ok()?.ok()?;
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Some(all[next % all.len()])
    }

    fn note(&self, headers: &HeaderMap, status: StatusCode) {
        if !status.is_success() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(id) = text("ce-id") else { return };
        let at = since_1970(SystemTime::now());
        let written = text("ce-time").and_then(|time| humantime::parse_rfc3339(time).ok());
        let latency = at.saturating_sub(written.map_or(at, since_1970));
        let mut messages = self.messages();
        let entry = messages.entry(id.to_owned()).or_insert(Answered {
            at,
            latency,
            times: 0,
        });
        entry.times += 1;
    }
}

/// Time since 1970.
pub(crate) fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

async fn forward(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, StatusCode> {
    let replica = gateway
        .replica()
        .await
        .ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let mut request = Request::post(format!("http://{replica}/predict"))
        .body(Full::new(body))
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    *request.headers_mut() = headers.clone();
    let answer = gateway.client.request(request).await;
    // A replica that has just ended is tried again by whoever asked.
    let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
    gateway.note(&headers, answer.status());
    Ok(answer.map(Body::new))
}
