//! An HTTP/1.1 client that knows the state of a request when its connection ends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A complete response with this status, and whether the connection may be reused.
    Answered(u16, bool),
    /// The request was sent, at least in part, and got no complete response.
    Lost,
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::with_capacity(4096),
        })
    }

    /// Whether the server has closed the connection, which it may where nobody has used it for long.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Ok(0))
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Outcome {
        if self.stream.write_all(request).await.is_err() {
            return Outcome::Lost;
        }
        self.read.clear();
        loop {
            match self.stream.read_buf(&mut self.read).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Outcome::Lost,
            }
            if let Some(outcome) = whole(&self.read) {
                return outcome;
            }
        }
    }

    /// Sends a part of a request, or all of it, and closes the connection.
    pub(crate) async fn leave(mut self, part: &[u8]) {
        // A failed write is part of the test.
        let _ = self.stream.write_all(part).await;
    }
}

/// The response, once it is complete.
fn whole(read: &[u8]) -> Option<Outcome> {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&read[..end]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let length: usize = header("content-length:")?.parse().ok()?;
    let keeps = header("connection:") != Some("close");
    (read.len() >= end + length).then_some(Outcome::Answered(status, keeps))
}

/// `GET /predict` for a text.
pub(crate) fn get(text: &str, headers: &str) -> Vec<u8> {
    let query: String = text.split(' ').collect::<Vec<_>>().join("+");
    format!("GET /predict?query={query} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").into_bytes()
}

/// `POST /predict` with a JSON body.
pub(crate) fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}
