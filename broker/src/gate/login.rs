//! What a client and the gate say to each other before the client is let through.
//!
//! A client asks which requests there are, names its mechanism and authenticates (KIP-152). The mock
//! cluster knows neither of the latter two, so they are added to its answer to the first.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::frame::{self, Request, take};
use super::sasl::{Credentials, Exchange, Step};

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;

/// What the gate knows itself: requests with their first and last versions. Handshakes of version 0
/// would be followed by tokens without a message around them.
const OURS: [(i16, i16, i16); 2] = [(SASL_HANDSHAKE, 1, 1), (SASL_AUTHENTICATE, 0, 1)];

/// Versions of the question for versions whose answers the gate can add to.
const VERSIONS_LAST: i16 = 2;

const NO_ERROR: i16 = 0;
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
const UNSUPPORTED_VERSION: i16 = 35;
const SASL_AUTHENTICATION_FAILED: i16 = 58;

/// How the conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client has logged in.
    Welcome,
    /// It has not, and has been told.
    Refused,
}

/// Talks with a client until it is clear whether it is let through.
pub(super) async fn converse(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    broker: &mut TcpStream,
    credentials: &Credentials,
) -> io::Result<Verdict> {
    let mut exchange = None;
    loop {
        let message = frame::read(client).await?;
        let request = Request::parse(&message).ok_or(io::ErrorKind::InvalidData)?;
        match request.api {
            API_VERSIONS if request.version > VERSIONS_LAST => {
                // The client asks again, in a version of those named here.
                let answer = request.answer().i16(UNSUPPORTED_VERSION).i32(1);
                let answer = answer.i16(API_VERSIONS).i16(0).i16(VERSIONS_LAST);
                frame::write(client, &answer.finish()).await?;
            }
            API_VERSIONS => {
                frame::write(broker, &message).await?;
                let answer = frame::read(broker).await?;
                let answer = with_ours(answer).ok_or(io::ErrorKind::InvalidData)?;
                frame::write(client, &answer).await?;
            }
            SASL_HANDSHAKE => {
                let known = handshake(client, &request, credentials).await?;
                if !known {
                    return Ok(Verdict::Refused);
                }
                exchange = Some(Exchange::new(credentials));
            }
            SASL_AUTHENTICATE => {
                if let Some(verdict) = authenticate(client, &request, &mut exchange).await? {
                    return Ok(verdict);
                }
            }
            // Whoever wants anything else has to log in first: as Kafka does, hang up.
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Whether the client's mechanism is the right one.
async fn handshake(
    client: &mut (impl AsyncWrite + Unpin),
    request: &Request<'_>,
    credentials: &Credentials,
) -> io::Result<bool> {
    let right = credentials.mechanism().name();
    let known = string(request.body) == Some(right.as_bytes());
    let error = if known {
        NO_ERROR
    } else {
        UNSUPPORTED_SASL_MECHANISM
    };
    let answer = request.answer().i16(error).i32(1).string(right);
    frame::write(client, &answer.finish()).await?;
    Ok(known)
}

/// One step of the proof; a verdict when it was the last.
async fn authenticate(
    client: &mut (impl AsyncWrite + Unpin),
    request: &Request<'_>,
    exchange: &mut Option<Exchange<'_>>,
) -> io::Result<Option<Verdict>> {
    let token = token(request.body).ok_or(io::ErrorKind::InvalidData)?;
    let step = exchange.as_mut().map(|exchange| exchange.step(token));
    let (error, said, verdict) = match step {
        None => (ILLEGAL_SASL_STATE, Vec::new(), Some(Verdict::Refused)),
        Some(Step::Challenge(said)) => (NO_ERROR, said, None),
        Some(Step::Proven(said)) => (NO_ERROR, said, Some(Verdict::Welcome)),
        Some(Step::Refused) => {
            let refused = Some(Verdict::Refused);
            (SASL_AUTHENTICATION_FAILED, Vec::new(), refused)
        }
    };
    let answer = request.answer().i16(error);
    let answer = if error == NO_ERROR {
        // A null text.
        answer.i16(-1)
    } else {
        answer.string("Authentication failed")
    };
    let mut answer = answer.bytes(&said);
    if request.version > 0 {
        // The session never ends.
        answer = answer.i64(0);
    }
    frame::write(client, &answer.finish()).await?;
    Ok(verdict)
}

/// The broker's answer to the question for versions, with what the gate knows.
fn with_ours(mut answer: Vec<u8>) -> Option<Vec<u8>> {
    let (_correlation, rest) = answer.split_first_chunk::<4>()?;
    let (error, rest) = rest.split_first_chunk()?;
    let (count, _) = rest.split_first_chunk()?;
    if i16::from_be_bytes(*error) != NO_ERROR {
        return Some(answer);
    }
    let count = i32::from_be_bytes(*count);
    let end = 10 + 6 * usize::try_from(count).ok()?;
    let more = i32::try_from(OURS.len()).ok()?;
    let mut ours: Vec<u8> = Vec::new();
    for (api, first, last) in OURS {
        ours.extend([api, first, last].map(i16::to_be_bytes).as_flattened());
    }
    // What is behind the list stays behind it.
    let behind = (end <= answer.len()).then(|| answer.split_off(end))?;
    answer.extend(ours);
    answer.extend(behind);
    answer
        .get_mut(6..10)?
        .copy_from_slice(&(count + more).to_be_bytes());
    Some(answer)
}

fn string(mut body: &[u8]) -> Option<&[u8]> {
    let length = i16::from_be_bytes(take(&mut body)?);
    body.get(..usize::try_from(length).ok()?)
}

fn token(mut body: &[u8]) -> Option<&[u8]> {
    let length = i32::from_be_bytes(take(&mut body)?);
    body.get(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gate_knows_is_added_to_the_list_and_the_rest_stays() {
        let listed = b"\0\0\0\x07\0\0\0\0\0\x01\0\x03\0\0\0\x05rest";
        let expected = [
            b"\0\0\0\x07\0\0\0\0\0\x03\0\x03\0\0\0\x05".as_slice(),
            b"\0\x11\0\x01\0\x01\0\x24\0\0\0\x01rest",
        ];
        assert_eq!(with_ours(listed.to_vec()), Some(expected.concat()));
        let failed = b"\0\0\0\x07\0\x23\0\0\0\0".to_vec();
        assert_eq!(with_ours(failed.clone()), Some(failed));
        for length in 0..16 {
            assert_eq!(with_ours(listed[..length].to_vec()), None, "{length} bytes");
        }
        let too_many = b"\0\0\0\x07\0\0\x7f\xff\xff\xff".to_vec();
        assert_eq!(with_ours(too_many), None);
        let negative = b"\0\0\0\x07\0\0\xff\xff\xff\xff".to_vec();
        assert_eq!(with_ours(negative), None);
    }

    #[test]
    fn texts_and_tokens_are_as_long_as_they_say() {
        assert_eq!(string(b"\0\x02abc"), Some(b"ab".as_slice()));
        assert_eq!(string(b"\0\x04abc"), None);
        assert_eq!(string(b"\xff\xff"), None);
        assert_eq!(token(b"\0\0\0\x02abc"), Some(b"ab".as_slice()));
        assert_eq!(token(b"\0\0\0\x04abc"), None);
        assert_eq!(token(b"\xff\xff\xff\xff"), None);
    }
}
