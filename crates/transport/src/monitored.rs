//! A stream that reports its bytes to the connection's [`Activity`], reads large bodies in turns, and
//! closes so that the client receives what was written last.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::activity::Activity;
use super::stream::Stream;
use intentd_base::turns::{Turn, Turns, thread_time};

/// A stream that reports what it reads and writes.
#[derive(Debug)]
pub(super) struct MonitoredStream {
    stream: Stream,
    activity: Arc<Activity>,
    /// Bytes read since the last write.
    read: usize,
    /// Bytes of a large body read since its last turn.
    burst: usize,
    /// Signals the start of the next turn, while one is awaited.
    turn: Option<oneshot::Receiver<()>>,
    turns: Arc<Turns>,
    /// Bytes discarded since our side was closed.
    discarded: Option<usize>,
    suppresses_continue: bool,
}

/// Deadline for a turn to read: the default of requests that wait to be decoded, so that neither kind
/// waits for all of the other.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// Bytes that a client may still send after our side was closed, before the connection is dropped.
const DISCARDED_MAX: usize = 64 << 20;

/// Bytes of one read. hyper's buffer for an HTTP/1 connection has 8 KiB, and grows up to the limit of a head
/// when a read fills it. A connection that waits for the rest of a body would keep all of that, uncounted. A
/// read that never fills the buffer leaves its size alone.
const READ_MAX: u64 = (8 << 10) - 1;

/// Bytes of a body after which reads are not limited any more. The buffer is small compared with the body
/// in memory by then, and small reads would be half of the cost.
const READ_LARGE: usize = 256 << 10;

/// What hyper sends when the body of a request with `Expect: 100-continue` is first read.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes of a large body read in one turn: some tens of microseconds. A body of at most this size is read
/// without turns.
const BURST_MAX: usize = 64 << 10;

impl MonitoredStream {
    /// See [`ConnectionLimits`](super::limits::ConnectionLimits) for `suppresses_continue`.
    pub(super) fn new(
        stream: Stream,
        activity: Arc<Activity>,
        turns: Arc<Turns>,
        suppresses_continue: bool,
    ) -> Self {
        Self {
            stream,
            activity,
            read: 0,
            burst: 0,
            turn: None,
            turns,
            discarded: None,
            suppresses_continue,
        }
    }

    /// Whether these bytes are a 100 that is not to be sent. hyper sends one by itself, in a write of its own unless
    /// another response is still on its way.
    fn is_suppressed(&self, bytes: &[u8]) -> bool {
        self.suppresses_continue && bytes == CONTINUE
    }

    /// Ready when it is this connection's turn to read more of a large body.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.get_or_insert_with(|| {
            let (begun, turn) = oneshot::channel();
            let asked = self.turns.ask(Instant::now() + READ_WITHIN);
            tokio::spawn(hold_turn(asked, begun));
            turn
        });
        // An error would mean that the runtime ends.
        let _ = ready!(Pin::new(turn).poll(cx));
        self.turn = None;
        self.burst = 0;
        Poll::Ready(())
    }

    /// Bytes read after a write do not belong to the same body. (On HTTP/2 they may, because windows and
    /// responses are written in between; there, windows bound the bodies.) A turn that is awaited is kept:
    /// it wakes the task that reads.
    fn end_body(&mut self) {
        (self.read, self.burst) = (0, 0);
    }
}

/// Holds a turn on behalf of a connection, which may not read again for long. The turn ends once the
/// connection's task has run, or could have.
async fn hold_turn(mut turn: Turn, mut begun: oneshot::Sender<()>) {
    tokio::select! {
        () = turn.begun() => {}
        () = begun.closed() => return,
    }
    if begun.send(()).is_ok() {
        tokio::task::yield_now().await;
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.burst >= BURST_MAX {
            ready!(this.poll_turn(cx));
        }
        let before = buffer.filled().len();
        let is_large = this.read >= BURST_MAX;
        let since = is_large.then(thread_time);
        let most = match this.read {
            READ_LARGE.. => u64::MAX,
            _ => READ_MAX,
        };
        let result = Pin::new(&mut (&mut this.stream).take(most)).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        this.burst += read;
        if let Some(since) = since.filter(|_| read > 0) {
            this.turns.read(read, thread_time().saturating_sub(since));
        }
        if read > 0 {
            this.read = this.read.saturating_add(read);
            this.activity.read();
        }
        result
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_suppressed(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        this.end_body();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.activity.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [bytes] = slices
            && this.is_suppressed(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        this.end_body();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.activity.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Closes our side and reads until the client has closed its own. A socket that is closed with unread
    /// bytes resets the connection, and the client may lose the response that it was about to read (RFC 9112,
    /// section 9.6). The connection's clock bounds the time.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.turn = None;
        let mut discarded = match this.discarded {
            Some(discarded) => discarded,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                this.activity.discarded();
                0
            }
        };
        let mut scratch = [0; 4096];
        loop {
            this.discarded = Some(discarded);
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
            let is_over = ready!(read).is_err() || buffer.filled().is_empty();
            discarded += buffer.filled().len();
            this.activity.discarded();
            if is_over || discarded > DISCARDED_MAX {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;

    /// A stream whose only thread for large bodies may be taken, and the client's end of it.
    struct Pair {
        turns: Arc<Turns>,
        server: MonitoredStream,
        client: UnixStream,
    }

    impl Pair {
        fn new() -> Self {
            let turns = Turns::new(1);
            let (ours, client) = UnixStream::pair().unwrap();
            let activity = Arc::new(Activity::new());
            let server =
                MonitoredStream::new(Stream::Unix(ours), activity, Arc::clone(&turns), false);
            Self {
                turns,
                server,
                client,
            }
        }

        /// A pair after one burst of a large body, while another request has the only turn.
        async fn after_a_burst() -> (Self, Turn) {
            let mut pair = Self::new();
            pair.client.write_all(&[0; BURST_MAX]).await.unwrap();
            let other = pair.turns.ask(Instant::now());
            pair.server
                .read_exact(&mut vec![0; BURST_MAX])
                .await
                .unwrap();
            (pair, other)
        }

        /// Asks for more, which has to wait for a turn.
        async fn wait_for_a_turn(&mut self) {
            let mut byte = [0];
            let more = tokio::time::timeout(Duration::ZERO, self.server.read(&mut byte));
            assert!(more.await.is_err(), "it waits for its turn");
        }

        async fn all_turns_are_over(&self) {
            while self.turns.free() == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// hyper's buffer has 8 KiB at first, and grows when a read fills it.
    #[tokio::test]
    async fn a_read_does_not_fill_the_buffer_of_http() {
        let mut pair = Pair::new();
        pair.client.write_all(&[0; 20_000]).await.unwrap();
        for expected in [8191, 8191, 3618] {
            let mut buffer = [0; 1 << 16];
            assert_eq!(pair.server.read(&mut buffer).await.unwrap(), expected);
        }
    }

    /// Each connection reads some of its large body before others read more.
    #[tokio::test]
    async fn large_bodies_are_read_in_turns() {
        let Pair {
            turns,
            mut server,
            mut client,
        } = Pair::new();
        let writing = tokio::spawn(async move {
            client.write_all(&[0; 4 * BURST_MAX]).await.unwrap();
            client
        });
        let mut buffer = vec![0; BURST_MAX];
        let other = turns.ask(Instant::now());
        server.read_exact(&mut buffer).await.unwrap();
        let mut byte = [0];
        let more = tokio::time::timeout(Duration::ZERO, server.read(&mut byte));
        assert!(more.await.is_err(), "another has the turn");
        drop(other);
        server.read_exact(&mut buffer[1..]).await.unwrap();
        let mut rest = vec![0; 2 * BURST_MAX];
        server.read_exact(&mut rest).await.unwrap();
        // A response ends the large body.
        server.write_all(b"answer").await.unwrap();
        let _other = turns.ask(Instant::now());
        server.read_exact(&mut byte).await.unwrap();
        writing.await.unwrap();
    }

    /// A connection that does something else while it waits does not keep the turn when it comes.
    #[tokio::test]
    async fn a_turn_in_which_nothing_is_read_is_passed_on() {
        for is_closed in [false, true] {
            let (mut pair, other) = Pair::after_a_burst().await;
            pair.wait_for_a_turn().await;
            if is_closed {
                // Closing waits for the client's end.
                pair.client.shutdown().await.unwrap();
                pair.server.shutdown().await.unwrap();
            } else {
                pair.server.write_all(b"answer").await.unwrap();
            }
            drop(other);
            pair.all_turns_are_over().await;
        }
    }

    /// A task that writes while it waits for its turn to read is woken when the turn comes.
    #[tokio::test]
    async fn a_reader_is_woken_for_its_turn_after_a_write() {
        let (mut pair, other) = Pair::after_a_burst().await;
        pair.client.write_all(b"more").await.unwrap();
        let is_written = Arc::new(AtomicBool::new(false));
        let mut server = pair.server;
        let reading = tokio::spawn({
            let is_written = Arc::clone(&is_written);
            async move {
                let mut buffer = [0; 4];
                let mut reads = 0;
                std::future::poll_fn(|cx| {
                    let mut buffer = ReadBuf::new(&mut buffer);
                    let polled = Pin::new(&mut server).poll_read(cx, &mut buffer);
                    if reads == 0 {
                        assert!(polled.is_pending(), "it waits for its turn");
                        let written = Pin::new(&mut server).poll_write(cx, b"answer");
                        assert!(written.is_ready());
                        is_written.store(true, Ordering::Relaxed);
                    }
                    reads += 1;
                    polled
                })
                .await
                .unwrap();
            }
        });
        while !is_written.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        drop(other);
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_ends_although_the_connection_does_not_read_again() {
        let (mut pair, other) = Pair::after_a_burst().await;
        pair.wait_for_a_turn().await;
        drop(other);
        pair.all_turns_are_over().await;
        assert!(
            pair.server.turn.is_some(),
            "it reads in its turn when it comes back"
        );
    }

    /// Knative's proxies take a 100 for the final status.
    #[tokio::test]
    async fn a_100_is_not_sent_where_that_would_hide_an_error() {
        let mut pair = Pair::new();
        pair.server.suppresses_continue = true;
        pair.server.write_all(CONTINUE).await.unwrap();
        pair.server.write_all(b"HTTP/1.1 400").await.unwrap();
        let mut found = [0; 12];
        pair.client.read_exact(&mut found).await.unwrap();
        assert_eq!(&found, b"HTTP/1.1 400");
    }
}
