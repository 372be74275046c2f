//! The headers that say what a body is: its encoding and its media type.

use axum::http::{HeaderMap, header};
use mime::Mime;

use crate::error::Refusal;

/// Refuses a compressed body.
pub(super) fn require_identity(headers: &HeaderMap) -> Result<(), Refusal> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let found = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        return Err(Refusal::ContentEncoding { found });
    }
    Ok(())
}

/// Whether a media type is JSON or is based on it (RFC 6839, section 3.1).
pub(super) fn is_json(mime: &Mime) -> bool {
    mime.suffix() == Some(mime::JSON) || mime.essence_str() == mime::APPLICATION_JSON
}
