//! One connection: its requests, its clock and its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower_service::Service as _;

use super::activity::{Activity, Due};
use super::stream::{Stream, Watched};
use super::{Life, Shared};

/// A port that closes leaves connections open until they have been silent for so long: what a client
/// sent before is read by then.
const QUIET: Duration = Duration::from_millis(100);

/// How often a connection is looked at that will end when its request does.
const LOOK: Duration = Duration::from_millis(20);

/// How long to look away from a connection whose request is under way.
const BUSY_LOOK: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it.
pub(super) async fn run(stream: Stream, shared: Arc<Shared>) {
    let stream = match (&shared.tls, stream) {
        (Some(tls), Stream::Tcp(stream)) => {
            let accept = tls.acceptor().accept(stream);
            match tokio::time::timeout(shared.limits.header_timeout, accept).await {
                Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                Ok(Err(error)) => return tracing::debug!(%error, "no TLS handshake"),
                Err(_) => return tracing::debug!("no TLS handshake in time"),
            }
        }
        (_, stream) => stream,
    };
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let service = {
        let (shared, activity) = (Arc::clone(&shared), Arc::clone(&activity));
        service_fn(move |request| answer(request, &shared, &activity))
    };
    let mut connection = pin!(shared.builder.serve_connection(io, service));
    let mut clock = Clock {
        activity,
        closing: None,
        told: None,
    };
    let mut life = shared.life.clone();
    let mut look = pin!(sleep_until(Instant::now() + shared.limits.header_timeout));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error, "connection ended");
                }
                return;
            }
            () = look.as_mut() => {}
            () = closes(&mut life), if clock.closing.is_none() => {
                clock.closing = Some(Instant::now());
            }
        }
        match clock.next(&shared) {
            Next::Look(at) => look.as_mut().reset(at),
            Next::Tell(at) => {
                connection.as_mut().graceful_shutdown();
                look.as_mut().reset(at);
            }
            Next::Drop => return,
        }
    }
}

async fn closes(life: &mut watch::Receiver<Life>) {
    // An error means that the sender is gone, and then it is time to close as well.
    let _ = life.wait_for(|life| *life == Life::Closing).await;
}

fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    activity: &Arc<Activity>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    let version = request.version();
    let under_way = activity.begin(version);
    let shared = Arc::clone(shared);
    let answer = shared.routes.clone().call(request.map(Body::new));
    async move {
        let mut response = answer.await?;
        if version < Version::HTTP_2 && shared.last_answers.load(Ordering::Relaxed) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        drop(under_way);
        Ok(response)
    }
}

/// Decides when a connection ends that does not end by itself.
struct Clock {
    activity: Arc<Activity>,
    /// Since when the port closes.
    closing: Option<Instant>,
    /// When the client was told that the connection ends (HTTP/2), or it was closed (HTTP/1).
    told: Option<Instant>,
}

enum Next {
    /// Look again then.
    Look(Instant),
    /// End it gracefully, and look again then.
    Tell(Instant),
    /// End it.
    Drop,
}

impl Clock {
    fn next(&mut self, shared: &Shared) -> Next {
        let now = Instant::now();
        let due = self.activity.due(&shared.limits);
        match (due, self.told, self.closing) {
            // GOAWAY lets the client finish what it has begun (RFC 9113, section 6.8).
            (Due::Now, None, _) if self.activity.is_h2() => self.tell(now),
            (Due::Now, ..) => Next::Drop,
            (_, Some(_), _) if matches!(due, Due::Busy) => Next::Look(now + LOOK),
            // Its client has been told and has nothing under way.
            (_, Some(told), _) if now.duration_since(told) > 10 * QUIET => Next::Drop,
            (_, Some(_), _) => Next::Look(now + LOOK),
            (_, None, Some(closing)) => self.close(now, closing),
            (Due::Busy, None, None) => Next::Look(now + BUSY_LOOK),
            (Due::At(at), None, None) => Next::Look(at),
        }
    }

    fn tell(&mut self, now: Instant) -> Next {
        self.told = Some(now);
        Next::Tell(now + LOOK)
    }

    fn close(&mut self, now: Instant, closing: Instant) -> Next {
        if self.activity.is_h2() {
            return self.tell(now);
        }
        // On HTTP/1 a request that crosses the end of its connection is lost, so it ends when nothing
        // is on its way; the answer to a request says that it is the last.
        match self.activity.silent_since() {
            Some(since) if now.duration_since(since.max(closing)) >= QUIET => self.tell(now),
            _ => Next::Look(now + LOOK),
        }
    }
}
