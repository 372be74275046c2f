//! Bodies of responses, in pieces that wait until the client receives them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::InFlightRequest;
use super::unread::DrainBody;

/// Bytes given to a stream at once. HTTP/2 takes all that it is given into memory, however little its client
/// lets it send. So the rest waits here, where the request still counts as in flight.
const PIECE: usize = 16 << 10;

/// A response's body. Its request is in flight until the body is sent or dropped.
pub(super) struct ResponseBody {
    body: Body,
    /// The rest of the current frame.
    rest: Bytes,
    request: Option<InFlightRequest>,
    /// The unread rest of the request's body; the response does not end before that is drained.
    drain: Option<DrainBody>,
    /// Whether `body` has no more frames.
    is_complete: bool,
}

impl ResponseBody {
    pub(super) fn new(body: Body, mut request: InFlightRequest, drain: Option<DrainBody>) -> Self {
        request.response_ready();
        Self {
            body,
            rest: Bytes::new(),
            request: Some(request),
            drain,
            is_complete: false,
        }
    }

    /// Ready when the response can end without a reset of its stream.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(drain) = &mut self.drain {
            ready!(Pin::new(drain).poll(cx));
            self.drain = None;
        }
        self.request = None;
        Poll::Ready(())
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.is_complete {
            return this.poll_end(cx).map(|()| None);
        }
        if this.rest.is_empty() {
            let frame = Pin::new(&mut this.body).poll_frame(cx);
            if let Some(request) = &mut this.request {
                // HTTP asks for more only when it has sent what came before.
                if frame.is_pending() {
                    request.response_sent();
                } else {
                    request.response_ready();
                }
            }
            match ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                None => {
                    this.is_complete = true;
                    return this.poll_end(cx).map(|()| None);
                }
                broken => {
                    this.request = None;
                    return Poll::Ready(broken);
                }
            }
        }
        let length = this.rest.len().min(PIECE);
        let piece = this.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.drain.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut total = SizeHint::new();
        total.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            total.set_upper(upper + rest);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use axum::http::Version;
    use futures_util::{FutureExt as _, StreamExt as _};
    use http_body_util::BodyExt;

    use super::*;
    use crate::activity::{Activity, Due};
    use crate::limits::ConnectionLimits;

    #[tokio::test]
    async fn a_stream_without_events_does_not_wait_for_its_client() {
        let limits = ConnectionLimits::EXAMPLE;
        let activity = Arc::new(Activity::new());
        let events = futures_util::stream::iter([Ok::<_, Infallible>("event")]);
        let never = futures_util::stream::pending();
        let body = Body::from_stream(events.chain(never));
        let mut response = ResponseBody::new(body, activity.begin(Version::HTTP_2), None);
        assert!(
            matches!(activity.due(&limits), Due::At(_)),
            "the head is to be sent"
        );
        let event = response.frame().await.unwrap().unwrap();
        assert_eq!(event.into_data().unwrap(), "event");
        assert!(
            matches!(activity.due(&limits), Due::At(_)),
            "the event is to be sent"
        );
        assert!(response.frame().now_or_never().is_none());
        assert_eq!(activity.due(&limits), Due::Busy, "there is nothing to send");
        drop(response);
        assert!(activity.silent_since().is_some());
    }

    #[tokio::test]
    async fn a_response_comes_in_pieces_and_its_request_is_in_flight_until_the_last() {
        let activity = Arc::new(Activity::new());
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
        let request = activity.begin(Version::HTTP_2);
        let mut response = ResponseBody::new(bytes.clone().into(), request, None);
        assert_eq!(response.size_hint().exact(), Some(40_000));
        let mut got = Vec::new();
        while let Some(frame) = response.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            got.extend_from_slice(&piece);
            assert_eq!(
                response.size_hint().exact(),
                Some(40_000 - got.len() as u64)
            );
            assert_eq!(activity.silent_since(), None);
        }
        assert_eq!(got, bytes);
        assert!(response.is_end_stream());
        assert!(activity.silent_since().is_some());
    }
}
