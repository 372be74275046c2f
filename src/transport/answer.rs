//! Bodies of answers, in pieces that wait until the client takes them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::UnderWay;
use super::unread::Unread;

/// Bytes that are given to a stream at once. HTTP/2 takes what it is given into memory, however little
/// its client lets it send; so what waits, waits here, where the answer still counts as under way.
const PIECE: usize = 16 << 10;

/// An answer's body; the request is under way until it is sent or dropped.
pub(super) struct Answer {
    body: Body,
    /// Of the frame that was begun.
    rest: Bytes,
    under_way: Option<UnderWay>,
    /// Of the request's body; the answer has no end before it has.
    unread: Option<Unread>,
    /// Whether there is no more of `body`.
    is_whole: bool,
}

impl Answer {
    pub(super) fn new(body: Body, mut under_way: UnderWay, unread: Option<Unread>) -> Self {
        under_way.answered();
        Self {
            body,
            rest: Bytes::new(),
            under_way: Some(under_way),
            unread,
            is_whole: false,
        }
    }

    /// The end, once nothing is on its way that would make it a reset.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(unread) = &mut self.unread {
            ready!(Pin::new(unread).poll(cx));
            self.unread = None;
        }
        self.under_way = None;
        Poll::Ready(())
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.is_whole {
            return this.poll_end(cx).map(|()| None);
        }
        if this.rest.is_empty() {
            let frame = Pin::new(&mut this.body).poll_frame(cx);
            if let Some(under_way) = &mut this.under_way {
                // Asked for more, HTTP has handed on all that came before.
                if frame.is_pending() {
                    under_way.waits();
                } else {
                    under_way.answered();
                }
            }
            match ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                None => {
                    this.is_whole = true;
                    return this.poll_end(cx).map(|()| None);
                }
                broken => {
                    this.under_way = None;
                    return Poll::Ready(broken);
                }
            }
        }
        let length = this.rest.len().min(PIECE);
        let piece = this.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.unread.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::http::Version;
    use futures_util::{FutureExt as _, StreamExt as _};
    use http_body_util::BodyExt;

    use super::*;
    use crate::transport::ConnectionLimits;
    use crate::transport::activity::{Activity, Due};

    #[tokio::test]
    async fn a_stream_without_events_waits_for_us_and_not_for_its_client() {
        let limits = ConnectionLimits {
            connections_max: 1,
            streams_max: 1,
            header_bytes_max: 8192,
            header_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(60)),
        };
        let activity = Arc::new(Activity::new());
        let events = futures_util::stream::iter([Ok::<_, Infallible>("event")]);
        let never = futures_util::stream::pending();
        let body = Body::from_stream(events.chain(never));
        let mut answer = Answer::new(body, activity.begin(Version::HTTP_2), None);
        assert!(
            matches!(activity.due(&limits), Due::At(_)),
            "the head is to be sent"
        );
        let event = answer.frame().await.unwrap().unwrap();
        assert_eq!(event.into_data().unwrap(), "event");
        assert!(
            matches!(activity.due(&limits), Due::At(_)),
            "the event is to be sent"
        );
        assert!(answer.frame().now_or_never().is_none());
        assert_eq!(activity.due(&limits), Due::Busy, "there is nothing to send");
        drop(answer);
        assert!(activity.silent_since().is_some());
    }

    #[tokio::test]
    async fn an_answer_comes_in_pieces_and_is_under_way_until_the_last() {
        let activity = Arc::new(Activity::new());
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
        let under_way = activity.begin(Version::HTTP_2);
        let mut answer = Answer::new(bytes.clone().into(), under_way, None);
        assert_eq!(answer.size_hint().exact(), Some(40_000));
        let mut got = Vec::new();
        while let Some(frame) = answer.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            got.extend_from_slice(&piece);
            assert_eq!(answer.size_hint().exact(), Some(40_000 - got.len() as u64));
            assert_eq!(activity.silent_since(), None);
        }
        assert_eq!(got, bytes);
        assert!(answer.is_end_stream());
        assert!(activity.silent_since().is_some());
    }
}
