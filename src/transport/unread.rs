//! What nobody has read of a request's body when its answer is there.
//!
//! HTTP/2 ends a stream of which nobody reads the rest by a reset, behind the answer. Clients that are
//! still sending then see the reset and not the answer (RFC 9113, section 8.1, lets them; curl does). So
//! the rest is read and thrown away, if it is little and comes soon: nothing of it is held, and the time
//! is bounded here and by the connection's clock.
//!
//! HTTP/1 has the lingering close of `stream.rs` for that. But a connection with a rest that nobody reads takes no further
//! request, and a client that is not told so would lose its next one. So a short rest is read, and after any other the
//! answer says that the connection ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep, timeout};

/// What is thrown away of a body: as much as one may have unless that is set (`--max-body-bytes`), so that
/// whoever sends what would be read otherwise hears why it is not.
const UNREAD_MAX: u64 = 2 << 20;

/// Time for it to come.
const UNREAD_TIME: Duration = Duration::from_secs(2);

/// Most of a body that is read on HTTP/1 so that another request can follow, and the time for it: it has been
/// received already, or is about to be.
const REST_MAX: u64 = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(50);

/// Where a body is put that nobody wants any more.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Mutex<Option<Incoming>>>);

/// A body that goes home when it is dropped.
pub(super) struct Lent {
    body: Option<Incoming>,
    home: Home,
}

impl Lent {
    pub(super) fn new(body: Incoming, home: Home) -> Self {
        let body = Some(body);
        Self { body, home }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.get_mut().body else {
            return Poll::Ready(None);
        };
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Home {
    /// Reads what is there now, if it is short. Whether another request can follow on HTTP/1.
    pub(super) async fn ends(&self, is_expecting: bool) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = body else {
            return true;
        };
        let is_short = body
            .size_hint()
            .upper()
            .is_some_and(|rest| rest <= REST_MAX);
        if is_expecting || !is_short {
            return false;
        }
        let mut body = body;
        let rest = async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(REST_TIME, rest).await.unwrap_or(false)
    }

    /// What is there now, if it is worth waiting for: nothing where all was read, where somebody still
    /// reads, where it is more than would be thrown away, and where the client waits for our word before
    /// it sends anything.
    pub(super) fn unread(&self, is_expecting: bool) -> Option<Unread> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let body = body.take()?;
        let is_little = body.size_hint().lower() <= UNREAD_MAX;
        (is_little && !is_expecting).then(|| Unread {
            body,
            left: UNREAD_MAX,
            time: Box::pin(sleep(UNREAD_TIME)),
        })
    }
}

/// Whether the client waits for our word before it sends the body (RFC 9110, section 10.1.1).
pub(super) fn is_expecting(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// The rest of a body; ready when it is read, or is not worth more.
pub(super) struct Unread {
    body: Incoming,
    left: u64,
    time: Pin<Box<Sleep>>,
}

impl Future for Unread {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // First, so that a client that never lets up does not get more.
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
