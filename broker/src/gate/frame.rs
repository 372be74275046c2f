//! Kafka's messages as far as a login needs them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message before a login, in bytes; those that belong there have a few hundred.
const BYTES_MAX: usize = 64 * 1024;

/// Reads one message without its length.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?).unwrap_or(usize::MAX);
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message after its length.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = i32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
        .await?;
    to.flush().await
}

/// A client's message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// What it asks.
    pub(super) api: i16,
    /// In which version.
    pub(super) version: i16,
    /// What the answer begins with.
    correlation: [u8; 4],
    /// What follows the client's name. In the flexible versions, which no login uses, there would
    /// be tags first.
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
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

    pub(super) fn answer(&self) -> Answer {
        Answer(self.correlation.to_vec())
    }
}

/// An answer in the making.
#[derive(Debug)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
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

    /// A short text.
    pub(super) fn string(self, text: &str) -> Self {
        let length = i16::try_from(text.len()).expect("texts of our own are short");
        let mut answer = self.i16(length);
        answer.0.extend(text.as_bytes());
        answer
    }

    /// A short token.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).expect("tokens of our own are short");
        let mut answer = self.i32(length);
        answer.0.extend(bytes);
        answer
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The first bytes, which `rest` then has no more.
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
        let request = Request::parse(message).unwrap();
        assert_eq!((request.api, request.version), (17, 1));
        assert_eq!(request.body, b"\0\x05PLAIN");
        assert_eq!(request.answer().i16(3).finish(), b"\0\0\0\x07\0\x03");

        let nameless = b"\0\x11\0\x01\0\0\0\x07\xff\xffrest";
        assert_eq!(Request::parse(nameless).unwrap().body, b"rest");
        for length in 0..message.len() - 7 {
            assert_eq!(Request::parse(&message[..length]), None, "{length} bytes");
        }
    }
}
