//! Kafka's message format, as far as a login needs it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message before a login, in bytes. The usual ones have a few hundred.
const BYTES_MAX: usize = 64 * 1024;

/// Reads a message after its length prefix.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?).unwrap_or(usize::MAX);
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a length prefix and a message.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = i32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
        .await?;
    to.flush().await
}

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestFrame<'a> {
    /// The API key.
    pub(super) api: i16,
    /// The version of the API.
    pub(super) version: i16,
    /// The correlation id, with which the response begins.
    correlation: [u8; 4],
    /// The body after the client's name. Flexible versions, which no login uses, would have tags before it.
    pub(super) body: &'a [u8],
}

impl<'a> RequestFrame<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut rest = message;
        let api = i16::from_be_bytes(take(&mut rest)?);
        let version = i16::from_be_bytes(take(&mut rest)?);
        let correlation = take(&mut rest)?;
        // The client's name, which may be null.
        let name = i16::from_be_bytes(take(&mut rest)?).max(0);
        let body = rest.get(usize::try_from(name).ok()?..)?;
        Some(Self {
            api,
            version,
            correlation,
            body,
        })
    }

    /// A response to this request, empty but for its header.
    pub(super) fn response(&self) -> ResponseFrame {
        ResponseFrame(self.correlation.to_vec())
    }
}

/// A response that is being built.
#[derive(Debug)]
pub(super) struct ResponseFrame(Vec<u8>);

impl ResponseFrame {
    pub(super) fn i16(mut self, value: i16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Appends a short text.
    pub(super) fn string(self, text: &str) -> Self {
        let length = i16::try_from(text.len()).expect("our own texts are short");
        let mut frame = self.i16(length);
        frame.0.extend(text.as_bytes());
        frame
    }

    /// Appends a short token.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).expect("our own tokens are short");
        let mut frame = self.i32(length);
        frame.0.extend(bytes);
        frame
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes the first `N` bytes off `rest`.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_header_and_a_body() {
        let message = b"\0\x11\0\x01\0\0\0\x07\0\x03app\0\x05PLAIN";
        let request = RequestFrame::parse(message).unwrap();
        assert_eq!((request.api, request.version), (17, 1));
        assert_eq!(request.body, b"\0\x05PLAIN");
        assert_eq!(request.response().i16(3).finish(), b"\0\0\0\x07\0\x03");

        let nameless = b"\0\x11\0\x01\0\0\0\x07\xff\xffrest";
        assert_eq!(RequestFrame::parse(nameless).unwrap().body, b"rest");
        for length in 0..message.len() - 7 {
            assert_eq!(
                RequestFrame::parse(&message[..length]),
                None,
                "{length} bytes"
            );
        }
    }
}
