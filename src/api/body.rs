//! Reads bodies: bounded in size, in time, and in what all of them take together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::error::Refusal;

/// The bounds on bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of one body.
    pub bytes_max: usize,
    /// Bytes of all bodies whose requests are not answered yet.
    pub memory_max: usize,
    /// Time for a body to arrive.
    pub timeout: Duration,
}

/// How long a body says that it is.
pub(super) fn length_of(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    // One that cannot be told is longer than any that can.
    Some(length.parse().unwrap_or(usize::MAX))
}

/// The bytes of all bodies in memory.
#[derive(Debug)]
pub(super) struct BodyMemory {
    limits: BodyLimits,
    held: AtomicUsize,
}

/// A body and its share of the memory, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    bytes: usize,
    memory: Arc<BodyMemory>,
}

impl Held {
    /// Counts `bytes` more.
    ///
    /// # Errors
    /// [`Refusal::BodyMemory`] when that is more than there may be.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let max = self.memory.limits.memory_max;
        let room = |held: usize| held.checked_add(bytes).filter(|held| *held <= max);
        self.memory
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| Refusal::BodyMemory { max })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Held {
    /// Counts an answer's bytes as well, until it is sent; it is computed already, so it is sent also
    /// when that is more than there should be.
    pub(super) fn carry(mut self, answer: Response) -> Response {
        let length = answer.body().size_hint().exact();
        let length = length
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        self.memory.held.fetch_add(length, Ordering::AcqRel);
        self.bytes += length;
        answer.map(|body| Body::new(Carried { body, _held: self }))
    }
}

/// An answer's body with its share of the memory.
struct Carried {
    body: Body,
    _held: Held,
}

impl HttpBody for Carried {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl BodyMemory {
    pub(super) fn new(limits: BodyLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            held: AtomicUsize::new(0),
        })
    }

    /// Time for a body to arrive.
    pub(super) fn timeout(&self) -> Duration {
        self.limits.timeout
    }

    /// Reads a body; one that says that it is too long is not read at all.
    pub(super) async fn read(
        self: &Arc<Self>,
        headers: &HeaderMap,
        body: Body,
        deadline: Option<Instant>,
    ) -> Result<(Bytes, Held), Refusal> {
        let max = self.limits.bytes_max;
        if length_of(headers).is_some_and(|length| length > max) {
            return Err(Refusal::BodyTooLarge { max });
        }
        let in_time = Instant::now().checked_add(self.limits.timeout);
        let (until, late) = match (deadline, in_time) {
            (Some(deadline), Some(in_time)) if deadline < in_time => (deadline, Refusal::Deadline),
            (Some(deadline), None) => (deadline, Refusal::Deadline),
            (_, Some(in_time)) => (in_time, Refusal::BodyTimeout),
            (None, None) => return self.collect(body).await,
        };
        tokio::time::timeout_at(until, self.collect(body))
            .await
            .unwrap_or(Err(late))
    }

    async fn collect(self: &Arc<Self>, mut body: Body) -> Result<(Bytes, Held), Refusal> {
        let max = self.limits.bytes_max;
        let mut held = Held {
            bytes: 0,
            memory: Arc::clone(self),
        };
        // Most bodies come in one piece and are not copied.
        let mut first = Bytes::new();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let broken = |error| Refusal::Malformed(format!("the body cannot be read: {error}"));
            // Trailers say nothing that is needed here.
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if held.bytes + data.len() > max {
                return Err(Refusal::BodyTooLarge { max });
            }
            held.grow(data.len())?;
            if first.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&data);
            }
        }
        let bytes = if rest.is_empty() { first } else { rest.into() };
        Ok((bytes, held))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures_util::StreamExt;

    use super::*;

    fn memory(bytes_max: usize, memory_max: usize) -> Arc<BodyMemory> {
        BodyMemory::new(BodyLimits {
            bytes_max,
            memory_max,
            timeout: Duration::from_secs(10),
        })
    }

    fn pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<Result<&'static str, std::io::Error>> =
            pieces.iter().copied().map(Ok).collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn pieces_are_joined_and_counted_until_they_are_dropped() {
        let memory = memory(10, 15);
        let headers = HeaderMap::new();
        let read = memory.read(&headers, pieces(&["abc", "", "def", "g"]), None);
        let (bytes, held) = read.await.unwrap();
        assert_eq!(&bytes[..], b"abcdefg");
        let more = memory.read(&headers, pieces(&["012345678"]), None).await;
        assert_eq!(more.unwrap_err(), Refusal::BodyMemory { max: 15 });
        drop(held);
        assert_eq!(memory.held.load(Ordering::Acquire), 0);
        let more = memory.read(&headers, pieces(&["012345678"]), None).await;
        assert_eq!(&more.unwrap().0[..], b"012345678");
    }

    #[tokio::test]
    async fn a_body_too_large_is_refused_by_its_word_or_when_it_gets_so() {
        let memory = memory(4, 100);
        let mut headers = HeaderMap::new();
        let read = memory.read(&headers, pieces(&["abc", "de"]), None);
        assert_eq!(read.await.unwrap_err(), Refusal::BodyTooLarge { max: 4 });
        let huge = HeaderValue::from_static("18446744073709551615");
        headers.insert(header::CONTENT_LENGTH, huge);
        let read = memory.read(&headers, pieces(&[]), None);
        assert_eq!(read.await.unwrap_err(), Refusal::BodyTooLarge { max: 4 });
        assert_eq!(memory.held.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let memory = memory(100, 100);
        let endless = || {
            let first = futures_util::stream::iter([Ok::<_, std::io::Error>("a")]);
            Body::from_stream(first.chain(futures_util::stream::pending()))
        };
        let headers = HeaderMap::new();
        let read = memory.read(&headers, endless(), None).await;
        assert_eq!(read.unwrap_err(), Refusal::BodyTimeout);
        let soon = Instant::now() + Duration::from_secs(1);
        let read = memory.read(&headers, endless(), Some(soon)).await;
        assert_eq!(read.unwrap_err(), Refusal::Deadline);
        assert_eq!(memory.held.load(Ordering::Acquire), 0);
    }
}
