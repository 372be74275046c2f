//! A connection's bytes, over TCP, TLS or a Unix socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use crate::turns::{Turn, Turns, thread_time};

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a client hears whose connection is one too many; as much as fits without waiting.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 104\r\n\r\n\
    {\"error\":\"too many connections are open (--max-connections); try again later\",\
    \"error_type\":\"Overloaded\"}";

impl Stream {
    /// Says that there are too many connections, without waiting for anything.
    pub(super) fn refuse(&self) {
        // Whoever does not get it sees a closed connection.
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(TOO_MANY),
            Self::Unix(stream) => stream.try_write(TOO_MANY),
            Self::Tls(_) => Ok(0),
        };
    }
}

macro_rules! delegate {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Unix($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Tls($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
        }
    };
}

/// A connection that tells its [`Activity`] what comes, and that is closed so that the client gets
/// what was written last.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
    /// Bytes read since something was written.
    read: usize,
    /// Of a large body, bytes read since the others had their turns, and who says that the next turn is there.
    burst: usize,
    turn: Option<oneshot::Receiver<()>>,
    turns: Arc<Turns>,
    /// Bytes thrown away since our side was closed.
    discarded: Option<usize>,
}

/// A turn to read should come within that: as long as requests have that are to be decoded, if it is not set
/// otherwise, so that neither waits for all of the others.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// What a client may still send after our side was closed, before it is cut off.
const DISCARDED_MAX: usize = 64 << 20;

/// Bytes that are read at once. hyper's buffer for a connection of HTTP/1 has 8 KiB, and grows up to a
/// head's size when a read fills it; one that waits for the rest of a body would keep all of that, and
/// nobody counts it. A read that never fills it leaves it as it is.
const READ_MAX: u64 = (8 << 10) - 1;

/// A body of which that much has come is read as it comes: beside what is held of it, the buffer is little,
/// and small reads would be half of what it costs.
const READ_LARGE: usize = 256 << 10;

/// Bytes of a large body that are read in a turn: some tens of microseconds. What is not more than that is
/// read without.
const BURST_MAX: usize = 64 << 10;

impl Watched {
    pub(super) fn new(stream: Stream, activity: Arc<Activity>, turns: Arc<Turns>) -> Self {
        Self {
            stream,
            activity,
            read: 0,
            burst: 0,
            turn: None,
            turns,
            discarded: None,
        }
    }

    /// Ready when it is this connection's turn to read some more of a large body.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.get_or_insert_with(|| {
            let (begun, turn) = oneshot::channel();
            let asked = self.turns.ask(Instant::now() + READ_WITHIN);
            tokio::spawn(hold(asked, begun));
            turn
        });
        // An error would mean that the runtime ends.
        let _ = ready!(Pin::new(turn).poll(cx));
        self.turn = None;
        self.burst = 0;
        Poll::Ready(())
    }

    /// What comes next is no part of the same body. (Over HTTP/2 it may be: there windows and answers are
    /// written in between, and bodies are bounded by their windows instead.) A turn that is waited for is kept:
    /// it is what wakes a task that reads.
    fn ends_body(&mut self) {
        (self.read, self.burst) = (0, 0);
    }
}

/// Has a turn in place of a connection, which may not come back to reading for long: the turn ends when the
/// connection's task has run, or could have.
async fn hold(mut turn: Turn, mut begun: oneshot::Sender<()>) {
    tokio::select! {
        () = turn.begun() => {}
        () = begun.closed() => return,
    }
    if begun.send(()).is_ok() {
        tokio::task::yield_now().await;
    }
}

impl AsyncRead for Watched {
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
        let result = delegate!(&mut this.stream, stream => {
            Pin::new(&mut stream.take(most)).poll_read(cx, buffer)
        });
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

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.ends_body();
        let result = delegate!(&mut this.stream, stream => stream.poll_write(cx, bytes));
        this.activity.wrote(result.is_pending());
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.ends_body();
        let result = delegate!(&mut this.stream, stream => stream.poll_write_vectored(cx, slices));
        this.activity.wrote(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(&mut self.get_mut().stream, stream => stream.poll_flush(cx))
    }

    /// Closes our side and reads until the client has closed its own: a socket that is closed with
    /// bytes unread resets the connection, and the client may lose the answer that it was about to
    /// read (RFC 9112, section 9.6). The connection's clock bounds the time.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.turn = None;
        let mut discarded = match this.discarded {
            Some(discarded) => discarded,
            None => {
                ready!(delegate!(&mut this.stream, stream => stream.poll_shutdown(cx)))?;
                this.activity.discarded();
                0
            }
        };
        let mut scratch = [0; 4096];
        loop {
            this.discarded = Some(discarded);
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = delegate!(&mut this.stream, stream => stream.poll_read(cx, &mut buffer));
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
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn the_refusal_says_how_long_it_is() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    /// hyper's buffer grows when a read fills it, and it has 8 KiB to begin with.
    #[tokio::test]
    async fn a_read_does_not_fill_the_buffer_of_http() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0; 20_000]).await.unwrap();
        let mut watched =
            Watched::new(Stream::Unix(ours), Arc::new(Activity::new()), Turns::new(1));
        for expected in [8191, 8191, 3618] {
            let mut buffer = [0; 1 << 16];
            assert_eq!(watched.read(&mut buffer).await.unwrap(), expected);
        }
    }

    fn connected(turns: &Arc<Turns>) -> (Watched, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let activity = Arc::new(Activity::new());
        let watched = Watched::new(Stream::Unix(ours), activity, Arc::clone(turns));
        (watched, theirs)
    }

    /// Of a large body, each has some before the others have more.
    #[tokio::test]
    async fn large_bodies_are_read_in_turns() {
        let turns = Turns::new(1);
        let (mut watched, mut theirs) = connected(&turns);
        let writing = tokio::spawn(async move {
            theirs.write_all(&[0; 4 * BURST_MAX]).await.unwrap();
            theirs
        });
        let mut buffer = vec![0; BURST_MAX];
        let other = turns.ask(Instant::now());
        watched.read_exact(&mut buffer).await.unwrap();
        let mut byte = [0];
        let more = tokio::time::timeout(Duration::ZERO, watched.read(&mut byte));
        assert!(more.await.is_err(), "another is at work");
        drop(other);
        watched.read_exact(&mut buffer[1..]).await.unwrap();
        let mut rest = vec![0; 2 * BURST_MAX];
        watched.read_exact(&mut rest).await.unwrap();
        // An answer ends what was large.
        watched.write_all(b"answer").await.unwrap();
        let _other = turns.ask(Instant::now());
        watched.read_exact(&mut byte).await.unwrap();
        writing.await.unwrap();
    }

    /// Whoever waits for a turn and does something else does not keep it when it comes.
    #[tokio::test]
    async fn a_turn_that_nobody_reads_in_is_passed_on() {
        for is_closed in [false, true] {
            let turns = Turns::new(1);
            let (mut watched, mut theirs) = connected(&turns);
            theirs.write_all(&[0; BURST_MAX]).await.unwrap();
            let other = turns.ask(Instant::now());
            watched.read_exact(&mut vec![0; BURST_MAX]).await.unwrap();
            let mut byte = [0];
            let more = tokio::time::timeout(Duration::ZERO, watched.read(&mut byte));
            assert!(more.await.is_err(), "it waits for its turn");
            if is_closed {
                drop(theirs);
                watched.shutdown().await.unwrap();
            } else {
                watched.write_all(b"answer").await.unwrap();
            }
            drop(other);
            while turns.free() == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whoever writes while it waits for its turn to read is woken when that comes.
    #[tokio::test]
    async fn a_reader_is_woken_for_its_turn_whatever_was_written_meanwhile() {
        let turns = Turns::new(1);
        let (mut watched, mut theirs) = connected(&turns);
        theirs.write_all(&[0; BURST_MAX]).await.unwrap();
        let other = turns.ask(Instant::now());
        watched.read_exact(&mut vec![0; BURST_MAX]).await.unwrap();
        theirs.write_all(b"more").await.unwrap();
        let is_written = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let reading = tokio::spawn({
            let is_written = Arc::clone(&is_written);
            async move {
                let mut buffer = [0; 4];
                let mut reads = 0;
                std::future::poll_fn(|cx| {
                    let mut buffer = ReadBuf::new(&mut buffer);
                    let polled = Pin::new(&mut watched).poll_read(cx, &mut buffer);
                    if reads == 0 {
                        assert!(polled.is_pending(), "it waits for its turn");
                        let written = Pin::new(&mut watched).poll_write(cx, b"answer");
                        assert!(written.is_ready());
                        is_written.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    reads += 1;
                    polled
                })
                .await
                .unwrap();
            }
        });
        while !is_written.load(std::sync::atomic::Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        drop(other);
        reading.await.unwrap();
    }

    /// Also when the connection is not asked for more.
    #[tokio::test]
    async fn a_turn_ends_although_the_connection_does_not_come_back() {
        let turns = Turns::new(1);
        let (mut watched, mut theirs) = connected(&turns);
        theirs.write_all(&[0; BURST_MAX]).await.unwrap();
        let other = turns.ask(Instant::now());
        watched.read_exact(&mut vec![0; BURST_MAX]).await.unwrap();
        let mut byte = [0];
        let more = tokio::time::timeout(Duration::ZERO, watched.read(&mut byte));
        assert!(more.await.is_err(), "it waits for its turn");
        drop(other);
        while turns.free() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(watched.turn.is_some(), "it has its turn whenever it comes");
    }
}
