//! Reads bodies, bounded in size, in time, and in the memory of all bodies together.

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
use intentd_base::turns::{Turns, thread_time};

/// The bounds on bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// The most bytes of one body.
    pub bytes_max: usize,
    /// The most bytes of all bodies whose requests are not answered yet.
    pub memory_max: usize,
    /// Time for a body to arrive; `None` for no limit.
    pub timeout: Option<Duration>,
}

/// The length that a body announces.
pub(super) fn content_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    // A number that does not fit counts as the largest one.
    Some(length.parse().unwrap_or(usize::MAX))
}

/// The memory of all bodies together.
#[derive(Debug)]
pub(super) struct BodyMemory {
    limits: BodyLimits,
    /// Accounts for the time that reading large bodies takes.
    turns: Arc<Turns>,
    reserved: AtomicUsize,
}

/// The share of [`BodyMemory`] that a request has reserved; dropping it frees the share.
#[derive(Debug)]
pub(super) struct BodyReservation {
    bytes: usize,
    memory: Arc<BodyMemory>,
}

impl BodyReservation {
    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// [`Refusal::BodyMemory`] if that exceeds the limit.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let BodyLimits {
            bytes_max,
            memory_max: max,
            ..
        } = self.memory.limits;
        // The largest body allowed fits if it is alone, in however many pieces it comes.
        let all = max.max(bytes_max.saturating_add(AROUND));
        let room = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= all);
        self.memory
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .map_err(|_| Refusal::BodyMemory { max })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Frees `bytes`, of which at least as many are reserved.
    fn shrink(&mut self, bytes: usize) {
        self.memory.reserved.fetch_sub(bytes, Ordering::AcqRel);
        self.bytes -= bytes;
    }

    /// Reserves the bytes of the answer too, and keeps everything reserved until it is sent. The answer is already
    /// computed, so it is sent even if that exceeds the limit.
    pub(super) fn carry(mut self, answer: Response) -> Response {
        let length = answer.body().size_hint().exact();
        let length = length
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        self.memory.reserved.fetch_add(length, Ordering::AcqRel);
        self.bytes += length;
        answer.map(|body| {
            Body::new(ReservedBody {
                body,
                _reservation: self,
            })
        })
    }
}

/// An answer's body with its reservation.
struct ReservedBody {
    body: Body,
    _reservation: BodyReservation,
}

impl HttpBody for ReservedBody {
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

impl Drop for BodyReservation {
    fn drop(&mut self) {
        self.memory.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl BodyMemory {
    pub(super) fn new(limits: BodyLimits, turns: Arc<Turns>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            turns,
            reserved: AtomicUsize::new(0),
        })
    }

    /// The most bytes of one body.
    pub(super) fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Time for a body to arrive, if it is limited.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.limits.timeout
    }

    /// Reads a body. One that announces more than the limit is refused unread.
    pub(super) async fn read(
        self: &Arc<Self>,
        headers: &HeaderMap,
        body: Body,
        deadline: Option<Instant>,
    ) -> Result<(Bytes, BodyReservation), Refusal> {
        let max = self.limits.bytes_max;
        let length = content_length(headers);
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
    ) -> Result<(Bytes, BodyReservation), Refusal> {
        let max = self.limits.bytes_max;
        let mut reservation = BodyReservation {
            bytes: 0,
            memory: Arc::clone(self),
        };
        let mut buffer = BodyBuffer::new(length.unwrap_or(max));
        while let Some(frame) = body.frame().await {
            let broken = |error| Refusal::Malformed(format!("the body cannot be read: {error}"));
            // Trailers are ignored.
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if buffer.length + data.len() > max {
                return Err(Refusal::BodyTooLarge { max });
            }
            if buffer.length == 0 && body.is_end_stream() {
                // Most bodies come in one piece and are not copied.
                reservation.grow(data.len())?;
                return Ok((data, reservation));
            }
            let since = buffer.is_large().then(thread_time);
            buffer.push(&data, &mut reservation)?;
            if let Some(since) = since {
                self.turns.read(0, thread_time().saturating_sub(since));
            }
        }
        let since = buffer.is_large().then(thread_time);
        let whole = buffer.join(&mut reservation);
        if let Some(since) = since {
            self.turns.read(0, thread_time().saturating_sub(since));
        }
        Ok((whole, reservation))
    }
}

/// An incomplete body, copied into chunks of our own. The transport's pieces are slices of buffers that may be much
/// larger and would be kept whole, and a single growing vector has up to twice the capacity that it needs.
struct BodyBuffer {
    chunks: Vec<Vec<u8>>,
    length: usize,
    /// The most bytes that the body can have.
    length_max: usize,
}

/// The capacity of a new chunk while a body has only begun. It is reserved before it is filled. An announced length
/// reserves nothing beyond that: announcing it costs a client nothing.
const FIRST_ROOM: usize = 1 << 10;

/// The capacity of later chunks, of which the allocator wastes nothing.
const ROOM: usize = 16 << 10;

/// The length from which the time of assembling a body is accounted for.
const LARGE: usize = 64 << 10;

/// The memory of a request apart from its body while the rest of that is awaited: its head and its task (measured).
const AROUND: usize = 4 << 10;

impl BodyBuffer {
    fn new(length_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            length: 0,
            length_max,
        }
    }

    /// Whether the time of the next step is accounted for.
    fn is_large(&self) -> bool {
        self.length >= LARGE
    }

    /// Appends `data`, and reserves the capacity for it.
    fn push(&mut self, data: &[u8], reservation: &mut BodyReservation) -> Result<(), Refusal> {
        let room = self
            .chunks
            .last()
            .map_or(0, |last| last.capacity() - last.len());
        let (first, rest) = data.split_at(room.min(data.len()));
        if let Some(last) = self.chunks.last_mut() {
            last.extend_from_slice(first);
        }
        self.length += first.len();
        if rest.is_empty() {
            return Ok(());
        }
        if self.chunks.is_empty() {
            reservation.grow(AROUND)?;
        }
        let has_begun_only = self.length + rest.len() <= 4 * FIRST_ROOM;
        let room = if has_begun_only { FIRST_ROOM } else { ROOM };
        let left = self.length_max.saturating_sub(self.length);
        let room = room.min(left).max(rest.len());
        reservation.grow(room)?;
        let mut chunk = Vec::with_capacity(room);
        chunk.extend_from_slice(rest);
        self.chunks.push(chunk);
        self.length += rest.len();
        Ok(())
    }

    /// Joins the chunks into one body, and reserves just that. Each chunk is freed once it is copied. Nothing is
    /// awaited meanwhile, so each thread has at most one second copy, for a moment.
    fn join(self, reservation: &mut BodyReservation) -> Bytes {
        let mut whole = Vec::with_capacity(self.length);
        for chunk in self.chunks {
            whole.extend_from_slice(&chunk);
        }
        reservation.shrink(reservation.bytes - self.length);
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
    async fn a_body_stays_reserved_until_it_is_dropped() {
        let memory = memory(10, 15);
        let headers = HeaderMap::new();
        let read = memory.read(&headers, pieces(&["abc", "", "def", "g"]), None);
        let (bytes, held) = read.await.unwrap();
        assert_eq!(&bytes[..], b"abcdefg");
        let more = memory.read(&headers, pieces(&["012345678"]), None).await;
        assert_eq!(more.unwrap_err(), Refusal::BodyMemory { max: 15 });
        drop(held);
        assert_eq!(memory.reserved.load(Ordering::Acquire), 0);
        let more = memory.read(&headers, pieces(&["012345678"]), None).await;
        assert_eq!(&more.unwrap().0[..], b"012345678");
    }

    /// What is reserved is what is used: no chunk keeps the buffer that it came in, and no capacity is unreserved.
    #[tokio::test]
    async fn half_a_body_is_reserved_with_its_capacity() {
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
            let held = memory.reserved.load(Ordering::Acquire);
            assert_eq!(held, room + AROUND, "{announced:?}");
            drop(reading);
            assert_eq!(memory.reserved.load(Ordering::Acquire), 0);
        }
    }

    #[tokio::test]
    async fn pieces_continue_in_the_next_chunk() {
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
            assert_eq!(memory.reserved.load(Ordering::Acquire), text.len());
            drop(held);
            assert_eq!(memory.reserved.load(Ordering::Acquire), 0);
        }
    }

    #[tokio::test]
    async fn a_large_body_is_refused_when_announced_or_when_it_exceeds_the_limit() {
        let memory = memory(4, 100);
        let mut headers = HeaderMap::new();
        let read = memory.read(&headers, pieces(&["abc", "de"]), None);
        assert_eq!(read.await.unwrap_err(), Refusal::BodyTooLarge { max: 4 });
        let huge = HeaderValue::from_static("18446744073709551615");
        headers.insert(header::CONTENT_LENGTH, huge);
        let read = memory.read(&headers, pieces(&[]), None);
        assert_eq!(read.await.unwrap_err(), Refusal::BodyTooLarge { max: 4 });
        assert_eq!(memory.reserved.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_refused_after_its_time() {
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
        assert_eq!(memory.reserved.load(Ordering::Acquire), 0);
    }
}
