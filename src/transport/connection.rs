//! One connection: its requests, its clock and its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse as _;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower_service::Service as _;

use super::activity::{Activity, Due};
use super::answer::Answer;
use super::stream::{Stream, Watched};
use super::unread::{Home, Lent, is_expecting};
use super::{Life, Shared, framing};

/// A port that closes leaves connections open until they have been silent for so long: what a client
/// sent before is read by then.
const QUIET: Duration = Duration::from_millis(100);

/// How often a connection is looked at that will end when its request does.
const LOOK: Duration = Duration::from_millis(20);

/// How long to look away from a connection whose request is under way.
const BUSY_LOOK: Duration = Duration::from_secs(1);

/// Time for what a client has begun on HTTP/2 before it heard that the connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it.
pub(super) async fn run(stream: Stream, shared: Arc<Shared>) {
    let Some(stream) = secured(stream, &shared).await else {
        return;
    };
    let activity = Arc::new(Activity::new());
    let watched = Watched::new(stream, Arc::clone(&activity), Arc::clone(&shared.turns));
    let io = TokioIo::new(watched);
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
    let mut look = pin!(sleep_until(clock.at(&shared)));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error, "connection ended");
                }
                return;
            }
            // After the connection, in whose poll bytes come and go: what that changes counts at once.
            () = poll_fn(|cx| {
                let at = clock.at(&shared);
                if at < look.deadline() {
                    look.as_mut().reset(at);
                }
                look.as_mut().poll(cx)
            }) => {}
            () = closes(&mut life), if clock.closing.is_none() => {
                clock.closing = Some(Instant::now());
            }
        }
        match clock.next(&shared) {
            Next::Look(at) => look.as_mut().reset(at),
            Next::Tell => {
                connection.as_mut().graceful_shutdown();
                look.as_mut().reset(Instant::now() + LOOK);
            }
            Next::Drop => return,
        }
    }
}

/// The stream after its TLS handshake, if there is to be one.
async fn secured(stream: Stream, shared: &Shared) -> Option<Stream> {
    let (tls, stream) = match (&shared.tls, stream) {
        (Some(tls), Stream::Tcp(stream)) => (tls, stream),
        (_, stream) => return Some(stream),
    };
    let accept = tls.acceptor().accept(stream);
    let accept = async {
        match shared.limits.header_timeout {
            Some(limit) => tokio::time::timeout(limit, accept).await,
            None => Ok(accept.await),
        }
    };
    let mut life = shared.life.clone();
    let given_up = async {
        closes(&mut life).await;
        tokio::time::sleep(QUIET).await;
    };
    tokio::select! {
        accepted = accept => match accepted {
            Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("no TLS handshake in time"),
        },
        () = given_up => tracing::debug!("no TLS handshake before the port closed"),
    }
    None
}

async fn closes(life: &mut watch::Receiver<Life>) {
    // An error means that the sender is gone, and then it is time to close as well.
    let _ = life.wait_for(|life| *life == Life::Closing).await;
}

fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    activity: &Arc<Activity>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
    let version = request.version();
    let under_way = activity.begin(version);
    let shared = Arc::clone(shared);
    let home = (version == Version::HTTP_2).then(Home::default);
    let is_expecting = is_expecting(request.headers());
    let answer = framing::check(&request).map(|()| {
        let lend = |body| match &home {
            Some(home) => Body::new(Lent::new(body, home.clone())),
            None => Body::new(body),
        };
        shared.routes.clone().call(request.map(lend))
    });
    async move {
        let (mut response, mut is_last) = match answer {
            Ok(answer) => (answer.await?, false),
            // Where its body ends, and so where the next request begins, is anybody's guess.
            Err(refusal) => (refusal.into_response(), true),
        };
        is_last |= shared.last_answers.load(Ordering::Relaxed);
        if version < Version::HTTP_2 && is_last {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let mut unread = home.and_then(|home| home.unread(is_expecting));
        // An answer without a body ends with its head, so that has to wait.
        if response.body().is_end_stream()
            && let Some(unread) = unread.take()
        {
            unread.await;
        }
        Ok(response.map(|body| Answer::new(body, under_way, unread)))
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
    /// End it gracefully, and look again soon.
    Tell,
    /// End it.
    Drop,
}

impl Clock {
    /// When the connection has to be looked at, as things stand.
    fn at(&self, shared: &Shared) -> Instant {
        match self.activity.due(&shared.limits) {
            Due::At(at) => at,
            Due::Busy => Instant::now() + BUSY_LOOK,
        }
    }

    fn next(&mut self, shared: &Shared) -> Next {
        let now = Instant::now();
        let due = self.activity.due(&shared.limits);
        let is_over = matches!(due, Due::At(at) if at <= now);
        match (self.told, self.closing) {
            // GOAWAY lets the client finish what it has begun (RFC 9113, section 6.8).
            (None, _) if is_over && self.activity.is_h2() => self.tell(now),
            _ if is_over => Next::Drop,
            (Some(told), _) => match self.activity.silent_since() {
                Some(since) if now.duration_since(since.max(told)) > GOODBYE => Next::Drop,
                _ => Next::Look(now + LOOK),
            },
            (None, Some(closing)) => self.close(now, closing),
            (None, None) => Next::Look(match due {
                Due::At(at) => at,
                Due::Busy => now + BUSY_LOOK,
            }),
        }
    }

    fn tell(&mut self, now: Instant) -> Next {
        self.told = Some(now);
        Next::Tell
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
