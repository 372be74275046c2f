//! One connection: TLS, requests, and the end that its clock decides.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse as _;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower_service::Service as _;

use super::activity::Activity;
use super::clock::{ClockStep, ConnectionClock, ENDING_CHECK, QUIET};
use super::framing;
use super::life::Life;
use super::limits::ConnectionLimits;
use super::monitored::MonitoredStream;
use super::response_body::ResponseBody;
use super::stream::Stream;
use super::tls::Tls;
use super::unread::{TrackedBody, UnreadSlot, expects_continue};
use intentd_base::turns::Turns;

/// State that all connections of a port share.
pub(super) struct ConnectionContext {
    pub(super) routes: Router,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) limits: ConnectionLimits,
    pub(super) builder: Builder<TokioExecutor>,
    pub(super) life: watch::Receiver<Life>,
    pub(super) turns: Arc<Turns>,
    /// Whether responses on HTTP/1 announce the end of the connection; `life` without its lock.
    pub(super) closes_after_response: AtomicBool,
}

/// Serves a connection until either side ends it.
pub(super) async fn run(stream: Stream, context: Arc<ConnectionContext>) {
    let Some(stream) = handshake(stream, &context).await else {
        return;
    };
    let activity = Arc::new(Activity::new());
    let turns = Arc::clone(&context.turns);
    let suppresses_continue = context.limits.suppresses_continue;
    let io = TokioIo::new(MonitoredStream::new(
        stream,
        Arc::clone(&activity),
        turns,
        suppresses_continue,
    ));
    let service = {
        let (context, activity) = (Arc::clone(&context), Arc::clone(&activity));
        service_fn(move |request| respond(request, &context, &activity))
    };
    let mut connection = pin!(context.builder.serve_connection(io, service));
    let mut clock = ConnectionClock::new(activity, context.limits);
    let mut life = context.life.clone();
    let mut check = pin!(sleep_until(clock.check_at()));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error, "connection ended");
                }
                return;
            }
            // After the connection: its poll moves bytes, and the clock has to see that at once.
            () = poll_fn(|cx| {
                let at = clock.check_at();
                if at < check.deadline() {
                    check.as_mut().reset(at);
                }
                check.as_mut().poll(cx)
            }) => {}
            () = Life::closing(&mut life), if !clock.is_closing() => clock.set_closing(),
        }
        match clock.step() {
            ClockStep::CheckAt(at) => check.as_mut().reset(at),
            ClockStep::ShutDown => {
                connection.as_mut().graceful_shutdown();
                check.as_mut().reset(Instant::now() + ENDING_CHECK);
            }
            ClockStep::Drop => return,
        }
    }
}

/// Completes the TLS handshake, if the port has TLS. `None` when that fails.
async fn handshake(stream: Stream, context: &ConnectionContext) -> Option<Stream> {
    let (tls, stream) = match (&context.tls, stream) {
        (Some(tls), Stream::Tcp(stream)) => (tls, stream),
        (_, stream) => return Some(stream),
    };
    let accept = tls.acceptor().accept(stream);
    let accept = async {
        match context.limits.header_timeout {
            Some(limit) => tokio::time::timeout(limit, accept).await,
            None => Ok(accept.await),
        }
    };
    let mut life = context.life.clone();
    let port_closed = async {
        Life::closing(&mut life).await;
        tokio::time::sleep(QUIET).await;
    };
    tokio::select! {
        accepted = accept => match accepted {
            Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("no TLS handshake in time"),
        },
        () = port_closed => tracing::debug!("no TLS handshake before the port closed"),
    }
    None
}

fn respond(
    request: Request<Incoming>,
    context: &Arc<ConnectionContext>,
    activity: &Arc<Activity>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + use<> {
    let version = request.version();
    let in_flight = activity.begin(version);
    let context = Arc::clone(context);
    let slot = (!request.body().is_end_stream()).then(UnreadSlot::default);
    let expects_continue = expects_continue(request.headers());
    let response = framing::check(&request).map(|()| {
        let track = |body| match &slot {
            Some(slot) => Body::new(TrackedBody::new(body, slot.clone())),
            None => Body::new(body),
        };
        context.routes.clone().call(request.map(track))
    });
    async move {
        let (mut response, mut is_last) = match response {
            Ok(response) => (response.await?, false),
            // The request's body has no known end, so the start of the next request is unknown.
            Err(error) => (error.into_response(), true),
        };
        is_last |= context.closes_after_response.load(Ordering::Relaxed);
        if version < Version::HTTP_2 {
            if let Some(slot) = slot.filter(|_| !is_last) {
                is_last = !slot.read_short_rest(expects_continue).await;
            }
            if is_last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            return Ok(response.map(|body| ResponseBody::new(body, in_flight, None)));
        }
        let mut drain = slot.and_then(|slot| slot.drain(expects_continue));
        // A response without a body ends with its head, so the head has to wait.
        if response.body().is_end_stream()
            && let Some(drain) = drain.take()
        {
            drain.await;
        }
        Ok(response.map(|body| ResponseBody::new(body, in_flight, drain)))
    }
}
