//! The login of a client, before the gate forwards its requests.
//!
//! A client asks for the supported APIs, names its mechanism and authenticates (KIP-152). The mock
//! cluster does not support the latter two. So the gate adds them to the cluster's response to the first.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::frame::{self, RequestFrame, take};
use super::sasl::{Credentials, Exchange, SaslStep};

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;

/// An API and its supported versions.
struct ApiVersions {
    api: i16,
    first: i16,
    last: i16,
}

/// The APIs of the gate itself. After a handshake of version 0, tokens would come without a message around them.
const GATE_APIS: [ApiVersions; 2] = [
    ApiVersions {
        api: SASL_HANDSHAKE,
        first: 1,
        last: 1,
    },
    ApiVersions {
        api: SASL_AUTHENTICATE,
        first: 0,
        last: 1,
    },
];

/// The last version of `ApiVersions` whose response the gate can extend.
const VERSIONS_LAST: i16 = 2;

const NO_ERROR: i16 = 0;
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
const UNSUPPORTED_VERSION: i16 = 35;
const SASL_AUTHENTICATION_FAILED: i16 = 58;

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginOutcome {
    /// The client has logged in.
    Accepted,
    /// The client has been refused, and told so.
    Refused,
}

/// Runs the login of a client.
pub(super) async fn log_in(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    broker: &mut TcpStream,
    credentials: &Credentials,
) -> io::Result<LoginOutcome> {
    let mut exchange = None;
    loop {
        let message = frame::read(client).await?;
        let request = RequestFrame::parse(&message).ok_or(io::ErrorKind::InvalidData)?;
        match request.api {
            API_VERSIONS if request.version > VERSIONS_LAST => {
                // The client asks again in one of the versions named here.
                let response = request.response().i16(UNSUPPORTED_VERSION).i32(1);
                let response = response.i16(API_VERSIONS).i16(0).i16(VERSIONS_LAST);
                frame::write(client, &response.finish()).await?;
            }
            API_VERSIONS => {
                frame::write(broker, &message).await?;
                let response = frame::read(broker).await?;
                let response = with_gate_apis(response).ok_or(io::ErrorKind::InvalidData)?;
                frame::write(client, &response).await?;
            }
            SASL_HANDSHAKE => {
                let known = handshake(client, &request, credentials).await?;
                if !known {
                    return Ok(LoginOutcome::Refused);
                }
                exchange = Some(Exchange::new(credentials));
            }
            SASL_AUTHENTICATE => {
                if let Some(outcome) = authenticate(client, &request, &mut exchange).await? {
                    return Ok(outcome);
                }
            }
            // All else needs a login first. Close the connection, as Kafka does.
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Answers the client's choice of a mechanism; returns whether it is the right one.
async fn handshake(
    client: &mut (impl AsyncWrite + Unpin),
    request: &RequestFrame<'_>,
    credentials: &Credentials,
) -> io::Result<bool> {
    let expected = credentials.mechanism().name();
    let known = string(request.body) == Some(expected.as_bytes());
    let error = if known {
        NO_ERROR
    } else {
        UNSUPPORTED_SASL_MECHANISM
    };
    let response = request.response().i16(error).i32(1).string(expected);
    frame::write(client, &response.finish()).await?;
    Ok(known)
}

/// Runs one step of the authentication; returns the outcome after the last.
async fn authenticate(
    client: &mut (impl AsyncWrite + Unpin),
    request: &RequestFrame<'_>,
    exchange: &mut Option<Exchange<'_>>,
) -> io::Result<Option<LoginOutcome>> {
    let token = token(request.body).ok_or(io::ErrorKind::InvalidData)?;
    let step = exchange.as_mut().map(|exchange| exchange.step(token));
    let (error, said, outcome) = match step {
        None => (ILLEGAL_SASL_STATE, Vec::new(), Some(LoginOutcome::Refused)),
        Some(SaslStep::Challenge(said)) => (NO_ERROR, said, None),
        Some(SaslStep::Proven(said)) => (NO_ERROR, said, Some(LoginOutcome::Accepted)),
        Some(SaslStep::Refused) => {
            let refused = Some(LoginOutcome::Refused);
            (SASL_AUTHENTICATION_FAILED, Vec::new(), refused)
        }
    };
    let response = request.response().i16(error);
    let response = if error == NO_ERROR {
        // A null string.
        response.i16(-1)
    } else {
        response.string("Authentication failed")
    };
    let mut response = response.bytes(&said);
    if request.version > 0 {
        // The session does not expire.
        response = response.i64(0);
    }
    frame::write(client, &response.finish()).await?;
    Ok(outcome)
}

/// Adds the gate's APIs to the broker's response to `ApiVersions`.
fn with_gate_apis(mut response: Vec<u8>) -> Option<Vec<u8>> {
    let (_correlation, rest) = response.split_first_chunk::<4>()?;
    let (error, rest) = rest.split_first_chunk()?;
    let (count, _) = rest.split_first_chunk()?;
    if i16::from_be_bytes(*error) != NO_ERROR {
        return Some(response);
    }
    let count = i32::from_be_bytes(*count);
    let end = 10 + 6 * usize::try_from(count).ok()?;
    let more = i32::try_from(GATE_APIS.len()).ok()?;
    let mut ours: Vec<u8> = Vec::new();
    for ApiVersions { api, first, last } in GATE_APIS {
        ours.extend([api, first, last].map(i16::to_be_bytes).as_flattened());
    }
    // What follows the list stays after it.
    let rest = (end <= response.len()).then(|| response.split_off(end))?;
    response.extend(ours);
    response.extend(rest);
    response
        .get_mut(6..10)?
        .copy_from_slice(&(count + more).to_be_bytes());
    Some(response)
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
    fn the_apis_of_the_gate_are_added_and_the_rest_stays() {
        let listed = b"\0\0\0\x07\0\0\0\0\0\x01\0\x03\0\0\0\x05rest";
        let expected = [
            b"\0\0\0\x07\0\0\0\0\0\x03\0\x03\0\0\0\x05".as_slice(),
            b"\0\x11\0\x01\0\x01\0\x24\0\0\0\x01rest",
        ];
        assert_eq!(with_gate_apis(listed.to_vec()), Some(expected.concat()));
        let failed = b"\0\0\0\x07\0\x23\0\0\0\0".to_vec();
        assert_eq!(with_gate_apis(failed.clone()), Some(failed));
        for length in 0..16 {
            assert_eq!(
                with_gate_apis(listed[..length].to_vec()),
                None,
                "{length} bytes"
            );
        }
        let too_many = b"\0\0\0\x07\0\0\x7f\xff\xff\xff".to_vec();
        assert_eq!(with_gate_apis(too_many), None);
        let negative = b"\0\0\0\x07\0\0\xff\xff\xff\xff".to_vec();
        assert_eq!(with_gate_apis(negative), None);
    }

    #[test]
    fn texts_and_tokens_have_the_length_of_their_prefix() {
        assert_eq!(string(b"\0\x02abc"), Some(b"ab".as_slice()));
        assert_eq!(string(b"\0\x04abc"), None);
        assert_eq!(string(b"\xff\xff"), None);
        assert_eq!(token(b"\0\0\0\x02abc"), Some(b"ab".as_slice()));
        assert_eq!(token(b"\0\0\0\x04abc"), None);
        assert_eq!(token(b"\xff\xff\xff\xff"), None);
    }
}
