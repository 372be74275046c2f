//! The unread rest of a request's body once its response is ready.
//!
//! If a request's body is not read to its end, HTTP/2 resets the stream after the response. A client that is
//! still sending then sees the reset and not the response (RFC 9113, section 8.1, allows that; curl does it).
//! So the rest is read and discarded if it is small and arrives soon. Nothing of it is kept in memory, and the
//! time is bounded here and by the connection's clock.
//!
//! HTTP/1 has the lingering close of `monitored.rs` instead. But a connection with an unread rest takes no further
//! request, and a client that does not know this loses its next one. So a short rest is read. After any other, the
//! response announces the close.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep, timeout};

/// Bytes of a body that are discarded: the default of `--max-body-bytes`. So a client whose body would have been
/// read otherwise learns why it was not.
const UNREAD_MAX: u64 = 2 << 20;

/// Time for these bytes to arrive.
const UNREAD_TIME: Duration = Duration::from_secs(2);

/// Longest rest of a body that is read on HTTP/1 so that another request can follow, and the time for it. Such a rest has
/// been received already or is about to be.
const SHORT_REST_MAX: u64 = 64 << 10;
const SHORT_REST_TIME: Duration = Duration::from_millis(100);

/// Receives a body that was dropped before it was read to its end.
#[derive(Clone, Default)]
pub(super) struct UnreadSlot(Arc<Mutex<Option<Incoming>>>);

/// A body that moves to its [`UnreadSlot`] when it is dropped unread.
pub(super) struct TrackedBody {
    body: Option<Incoming>,
    /// Whether its end was read. A chunked body does not know that by itself.
    has_ended: bool,
    slot: UnreadSlot,
}

impl TrackedBody {
    pub(super) fn new(body: Incoming, slot: UnreadSlot) -> Self {
        Self {
            body: Some(body),
            has_ended: false,
            slot,
        }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let is_unread = |body: &Incoming| !self.has_ended && !body.is_end_stream();
        if let Some(body) = self.body.take().filter(is_unread) {
            *self.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        // Trailers are the last frame.
        this.has_ended |= match &frame {
            None => true,
            Some(frame) => frame.as_ref().is_ok_and(Frame::is_trailers),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl UnreadSlot {
    /// Reads the body in the slot to its end if it is short. Whether another request can follow on HTTP/1.
    pub(super) async fn read_short_rest(&self, expects_continue: bool) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = body else {
            return true;
        };
        if expects_continue || body.size_hint().lower() > SHORT_REST_MAX {
            return false;
        }
        let rest = async {
            let mut left = SHORT_REST_MAX;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(frame) = frame else {
                    return false;
                };
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
            true
        };
        timeout(SHORT_REST_TIME, rest).await.unwrap_or(false)
    }

    /// Drains the body in the slot. `None` if the body was read to its end, is still being read, is larger than
    /// what is discarded, or if its client waits for `100 Continue` before it sends anything.
    pub(super) fn drain(&self, expects_continue: bool) -> Option<DrainBody> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let body = body.take()?;
        let is_small = body.size_hint().lower() <= UNREAD_MAX;
        (is_small && !expects_continue).then(|| DrainBody {
            body,
            left: UNREAD_MAX,
            time: Box::pin(sleep(UNREAD_TIME)),
        })
    }
}

/// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1).
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Reads and discards the rest of a body; ready at its end or at a bound.
pub(super) struct DrainBody {
    body: Incoming,
    left: u64,
    time: Pin<Box<Sleep>>,
}

impl Future for DrainBody {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // First, so that a client that never stops sending gets no more time.
        if this.time.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while let Some(Ok(frame)) = ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match this.left.checked_sub(length) {
                Some(left) => this.left = left,
                None => break,
            }
        }
        Poll::Ready(())
    }
}
