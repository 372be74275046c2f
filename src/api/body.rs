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
use crate::turns::{Turns, thread_time};

/// The bounds on bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of one body.
    pub bytes_max: usize,
    /// Bytes of all bodies whose requests are not answered yet.
    pub memory_max: usize,
    /// Time for a body to arrive; `None` for no limit.
    pub timeout: Option<Duration>,
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
    /// Where the time is counted that large bodies take.
    turns: Arc<Turns>,
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
        let BodyLimits {
            bytes_max,
            memory_max: max,
            ..
        } = self.memory.limits;
        // A body that is as large as it may be fits where it is alone, however it comes.
        let all = max.max(bytes_max.saturating_add(AROUND));
        let room = |held: usize| held.checked_add(bytes).filter(|held| *held <= all);
        self.memory
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| Refusal::BodyMemory { max })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Counts `bytes` less; as many are counted at least.
    fn shrink(&mut self, bytes: usize) {
        self.memory.held.fetch_sub(bytes, Ordering::AcqRel);
        self.bytes -= bytes;
    }

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
    pub(super) fn new(limits: BodyLimits, turns: Arc<Turns>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            turns,
            held: AtomicUsize::new(0),
        })
    }

    /// Bytes of one body.
    pub(super) fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Time for a body to arrive, if it is limited.
    pub(super) fn timeout(&self) -> Option<Duration> {
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
        let length = length_of(headers);
        if length.is_some_and(|length| length > max) {
            return Err(Refusal::BodyTooLarge { max });
        }
        let in_time = self
            .limits
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let (until, late) = match (deadline, in_time) {
            (Some(deadline), Some(in_time)) if deadline < in_time => (deadline, Refusal::Deadline),
            (Some(deadline), None) => (deadline, Refusal::Deadline),
            (_, Some(in_time)) => (in_time, Refusal::BodyTimeout),
            (None, None) => return self.collect(body, length).await,
        };
        tokio::time::timeout_at(until, self.collect(body, length))
            .await
            .unwrap_or(Err(late))
    }

    async fn collect(
        self: &Arc<Self>,
        mut body: Body,
        length: Option<usize>,
    ) -> Result<(Bytes, Held), Refusal> {
        let max = self.limits.bytes_max;
        let mut held = Held {
            bytes: 0,
            memory: Arc::clone(self),
        };
        let mut pieces = Pieces::new(length.unwrap_or(max));
        while let Some(frame) = body.frame().await {
            let broken = |error| Refusal::Malformed(format!("the body cannot be read: {error}"));
            // Trailers say nothing that is needed here.
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if pieces.length + data.len() > max {
                return Err(Refusal::BodyTooLarge { max });
            }
            if pieces.length == 0 && body.is_end_stream() {
                // Most bodies come in one piece and are not copied.
                held.grow(data.len())?;
                return Ok((data, held));
            }
            let since = pieces.is_large().then(thread_time);
            pieces.take(&data, &mut held)?;
            if let Some(since) = since {
                self.turns.read(0, thread_time().saturating_sub(since));
            }
        }
        let since = pieces.is_large().then(thread_time);
        let whole = pieces.join(&mut held);
        if let Some(since) = since {
            self.turns.read(0, thread_time().saturating_sub(since));
        }
        Ok((whole, held))
    }
}

/// A body on its way, in pieces of our own. What the transport gives is a part of a buffer that may be
/// much larger, and that would be kept whole; and one piece that grows has room for twice what is there.
struct Pieces {
    filled: Vec<Vec<u8>>,
    length: usize,
    /// Bytes that there will be at most.
    most: usize,
}

/// Room that is made for what comes next: little for a body that has only begun, then more, in pieces of
/// which the allocator wastes nothing. It is counted before it is filled. What a client says will come is
/// not believed beyond that: saying so costs it nothing.
const FIRST_ROOM: usize = 1 << 10;
const ROOM: usize = 16 << 10;

/// From here on putting a body together is work that is counted.
const LARGE: usize = 64 << 10;

/// What a request takes beside its body while the rest of that is waited for: its head, and what will
/// answer it (measured).
const AROUND: usize = 4 << 10;

impl Pieces {
    fn new(most: usize) -> Self {
        Self {
            filled: Vec::new(),
            length: 0,
            most,
        }
    }

    /// Whether what comes next is worth a look at the clock.
    fn is_large(&self) -> bool {
        self.length >= LARGE
    }

    /// Copies `data`, and counts the room that it takes.
    fn take(&mut self, data: &[u8], held: &mut Held) -> Result<(), Refusal> {
        let room = self
            .filled
            .last()
            .map_or(0, |last| last.capacity() - last.len());
        let (first, rest) = data.split_at(room.min(data.len()));
        if let Some(last) = self.filled.last_mut() {
            last.extend_from_slice(first);
        }
        self.length += first.len();
        if rest.is_empty() {
            return Ok(());
        }
        if self.filled.is_empty() {
            held.grow(AROUND)?;
        }
        let has_begun_only = self.length + rest.len() <= 4 * FIRST_ROOM;
        let room = if has_begun_only { FIRST_ROOM } else { ROOM };
        let left = self.most.saturating_sub(self.length);
        let room = room.min(left).max(rest.len());
        held.grow(room)?;
        let mut piece = Vec::with_capacity(room);
        piece.extend_from_slice(rest);
        self.filled.push(piece);
        self.length += rest.len();
        Ok(())
    }

    /// All of it in one piece, counted as such. Each piece is given back as soon as it is copied, and
    /// nothing is waited for meanwhile, so each thread has one second copy at most, for a moment.
    fn join(self, held: &mut Held) -> Bytes {
        let mut whole = Vec::with_capacity(self.length);
        for piece in self.filled {
            whole.extend_from_slice(&piece);
        }
        held.shrink(held.bytes - self.length);
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    fn memory(bytes_max: usize, memory_max: usize) -> Arc<BodyMemory> {
        let limits = BodyLimits {
            bytes_max,
            memory_max,
            timeout: Some(Duration::from_secs(10)),
        };
        BodyMemory::new(limits, Turns::new(1))
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

    /// What is counted is what is held: no piece keeps the buffer that it came in, and none has room that
    /// nobody has counted.
    #[tokio::test]
    async fn half_a_body_is_counted_with_the_room_it_takes() {
        for (announced, room) in [
            (Some(20), 20),
            (Some(1 << 20), FIRST_ROOM),
            (None, FIRST_ROOM),
        ] {
            let memory = memory(1 << 20, 1 << 20);
            let half = futures_util::stream::iter(["ab", "c"].map(Ok::<_, std::io::Error>));
            let body = Body::from_stream(half.chain(futures_util::stream::pending()));
            let mut reading = Box::pin(memory.collect(body, announced));
            assert!((&mut reading).now_or_never().is_none());
            let held = memory.held.load(Ordering::Acquire);
            assert_eq!(held, room + AROUND, "{announced:?}");
            drop(reading);
            assert_eq!(memory.held.load(Ordering::Acquire), 0);
        }
    }

    #[tokio::test]
    async fn pieces_longer_than_their_room_go_on_in_the_next() {
        let text: String = ('a'..='z').cycle().take(100_000).collect();
        for announced in [Some(text.len()), None, Some(7)] {
            let memory = memory(1 << 20, 1 << 20);
            let parts: Vec<Result<Bytes, std::io::Error>> = text
                .as_bytes()
                .chunks(7001)
                .map(|part| Ok(Bytes::copy_from_slice(part)))
                .collect();
            let body = Body::from_stream(futures_util::stream::iter(parts));
            let (bytes, held) = memory.collect(body, announced).await.unwrap();
            assert!(bytes == text.as_bytes(), "{announced:?}");
            assert_eq!(memory.held.load(Ordering::Acquire), text.len());
            drop(held);
            assert_eq!(memory.held.load(Ordering::Acquire), 0);
        }
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
